"""Has the Dagster webserver load this code location again, as its button does."""

from urllib.parse import urlsplit

LOCATION = "lakehouse"
_TIMEOUT_S = 60


def reload_code_location(url: str) -> str:
    """Ask the webserver at `url` to reload; returns what came of it, for the log."""
    if not url:
        return "reload the code location to see them in the graph"
    # Imported when needed: it takes half a second.
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

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
        return f"the Dagster webserver at LAKEHOUSE_DAGSTER_URL does not answer ({reason}); reload the code location"
    return f"reloading the code location: {answer.status.value.lower()}"
