"""Has the Dagster webserver load this code location again, as its button does."""

from typing import NamedTuple
from urllib.parse import urlsplit

LOCATION = "lakehouse"
_TIMEOUT_S = 60


class Reload(NamedTuple):
    """What came of asking for it.

    Attributes:
        failed: Worth another try. Not where there is nobody to ask.
        said: For the log.
    """

    failed: bool
    said: str


def reload_code_location(url: str) -> Reload:
    """Ask the webserver at `url` to reload; without a URL there is nobody to ask."""
    if not url:
        return Reload(failed=False, said="reload the code location to see them in the graph")
    # Imported when needed: it takes half a second.
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError, ReloadRepositoryLocationStatus

    parts = urlsplit(url)
    try:
        client = DagsterGraphQLClient(
            parts.hostname or "",
            port_number=parts.port,
            use_https=parts.scheme == "https",
            path_prefix=parts.path.rstrip("/"),
            timeout=_TIMEOUT_S,
        )
        answer = client.reload_repository_location(LOCATION)
    except (DagsterGraphQLClientError, OSError) as error:
        reason = type(error).__name__
        said = f"the Dagster webserver at LAKEHOUSE_DAGSTER_URL does not answer ({reason}); it is asked again"
        return Reload(failed=True, said=said)
    failed = answer.status is not ReloadRepositoryLocationStatus.SUCCESS
    return Reload(failed, f"reloading the code location: {answer.status.value.lower()}")
