"""Where a lake is, in words that engines outside of Python use. Read from the lake's own settings."""

from dataclasses import dataclass, field
from typing import Self

from sqlalchemy.engine import make_url

from lakehouse.catalog.object_store import ObjectStore
from lakehouse.catalog.settings import Settings

CATALOG_NAME = "lake"


@dataclass(frozen=True)
class LakeLocation:
    """One lake.

    Attributes:
        jdbc_url: Database that holds the table pointers, without user and password.
        warehouse: URI below which the tables lie.
        object_store: The store behind it; None on local files.
    """

    jdbc_url: str
    jdbc_user: str
    warehouse: str
    object_store: ObjectStore | None
    jdbc_password: str = field(default="", repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Location of the lake that the settings name.

        Raises:
            ConfigurationError: If the object store is not sufficiently described.
            ValueError: If PostgreSQL is named by a Unix socket, which Java does not know.
        """
        url = make_url(settings.database_url)
        if url.get_backend_name() == "sqlite":
            jdbc_url = f"jdbc:sqlite:{url.database}"
        elif url.host is None:
            raise ValueError("MOSAICOD_DB_URL must name a host: Java reaches PostgreSQL over TCP only")
        else:
            jdbc_url = f"jdbc:postgresql://{url.host}:{url.port or 5432}/{url.database}"
        is_s3 = settings.warehouse_uri.startswith("s3://")
        return cls(
            jdbc_url,
            url.username or "",
            settings.warehouse_uri,
            ObjectStore.from_settings(settings) if is_s3 else None,
            url.password or "",
        )
