"""Where a lake is, in words that engines outside of Python use. Read from the lake's own settings."""

from dataclasses import dataclass, field
from typing import Self

from sqlalchemy.engine import make_url

from lakehouse.catalog.object_store import ObjectStore
from lakehouse.catalog.settings import Settings

CATALOG_NAME = "lake"


@dataclass(frozen=True)
class JdbcCatalog:
    """The SQL catalog in the lake's own database.

    Attributes:
        url: Database that holds the table pointers, without user and password.
        warehouse: URI below which the tables lie.
    """

    url: str
    user: str
    warehouse: str
    password: str = field(default="", repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The catalog of a lake that names no other.

        Raises:
            ValueError: If PostgreSQL is named by a Unix socket, which Java does not know.
        """
        url = make_url(settings.database_url)
        if url.get_backend_name() == "sqlite":
            jdbc_url = f"jdbc:sqlite:{url.database}"
        elif url.host is None:
            raise ValueError("MOSAICOD_DB_URL must name a host: Java reaches PostgreSQL over TCP only")
        else:
            jdbc_url = f"jdbc:postgresql://{url.host}:{url.port or 5432}/{url.database}"
        return cls(jdbc_url, url.username or "", settings.warehouse_uri, url.password or "")


@dataclass(frozen=True)
class RestCatalog:
    """An Iceberg REST catalog.

    Attributes:
        uri: Of the catalog, without `/v1`.
        warehouse: Its name there; may be empty.
        token: Bearer token; may be empty.
        credential: `client_id:client_secret`, for which there are tokens; may be empty. Counts if there are both.
        token_url: Who gives these.
        scope: Of these; may be empty.
    """

    uri: str
    warehouse: str
    token: str = field(default="", repr=False)
    credential: str = field(default="", repr=False)
    token_url: str = ""
    scope: str = ""


@dataclass(frozen=True)
class LakeLocation:
    """One lake.

    Attributes:
        catalog: Where the pointers to its tables are.
        object_store: The store behind it; None on local files.
    """

    catalog: JdbcCatalog | RestCatalog
    object_store: ObjectStore | None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Location of the lake that the settings name.

        Raises:
            ConfigurationError: If the object store is not sufficiently described.
            ValueError: If PostgreSQL is named by a Unix socket, which Java does not know.
        """
        is_s3 = settings.warehouse_uri.startswith("s3://")
        return cls(_catalog(settings), ObjectStore.from_settings(settings) if is_s3 else None)


def _catalog(settings: Settings) -> JdbcCatalog | RestCatalog:
    if not settings.catalog_uri:
        return JdbcCatalog.from_settings(settings)
    return RestCatalog(
        settings.catalog_uri,
        settings.catalog_warehouse,
        settings.catalog_token.get_secret_value(),
        settings.catalog_credential.get_secret_value(),
        settings.catalog_token_url,
        settings.catalog_scope,
    )
