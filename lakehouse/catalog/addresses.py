"""From settings to the addresses that libraries want: of the database, and of the warehouse. Pure functions."""

from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL, make_url


def database_url(db_url: str, embedded: Path) -> str:
    """SQLAlchemy URL of the database that a user names, or of the embedded one if none is named."""
    if not db_url:
        return URL.create("sqlite", database=str(embedded)).render_as_string(hide_password=False)
    scheme, separator, rest = db_url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in ("postgres", "postgresql") else db_url


def without_passwords(url: str) -> str:
    """A database URL as people may see it: passwords among its parameters are hidden too."""
    parsed = make_url(url)
    shown = {key: "***" if "password" in key.lower() else value for key, value in parsed.query.items()}
    return parsed.set(query=shown).render_as_string(hide_password=True)


def passwords_in(url: str) -> list[str]:
    """The passwords of a database URL, also those among its parameters."""
    parsed = make_url(url)
    among = [str(value) for key, value in parsed.query.items() if "password" in key.lower()]
    return [parsed.password or "", *among]


def warehouse_uri(endpoint: str, bucket: str, home: Path) -> str:
    """Root URI of all table files, without trailing slash.

    As everywhere in Iceberg, what follows the scheme is taken literally, never percent-decoded.

    Args:
        endpoint: Of an object store, `file:///dir`, or empty.
        bucket: A bucket, or a directory below a file endpoint.
        home: Holds the warehouse if there is no endpoint; absolute.
    """
    if not endpoint:
        return f"file://{home / bucket}"
    if endpoint.startswith("file://"):
        return f"file://{Path(unquote(endpoint.removeprefix('file://'))) / bucket}"
    return f"s3://{bucket}"
