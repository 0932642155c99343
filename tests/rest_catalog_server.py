"""What the real Iceberg REST catalog servers of the tests have in common: tables in a real S3 server."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.s3_server import S3Server
from tests.warehouses import environment

START_TIMEOUT_S = 180


@dataclass(frozen=True)
class RestCatalogServer(ABC):
    """A running server.

    Attributes:
        commits_at_once: Whether a commit to several tables is atomic.
        port: On 127.0.0.1.
        s3: Where its tables are.
        bucket: The bucket of all of them.
        warehouse: Name of that, as clients give it.
    """

    commits_at_once: ClassVar[bool]
    port: int
    s3: S3Server
    bucket: str
    warehouse: str

    @abstractmethod
    def new_catalog(self) -> str:
        """URI of an empty catalog."""

    @abstractmethod
    def access(self) -> dict[str, str]:
        """Settings, by the names of `Settings`, that get us in."""

    @abstractmethod
    def token(self) -> str:
        """What gets another engine in; empty if nothing is asked for."""

    def settings(self, catalog: str) -> dict[str, Any]:
        """Settings, by the names of `Settings`, of a lake whose tables are in this catalog."""
        place = {"catalog_uri": catalog, "catalog_warehouse": self.warehouse}
        return {**self.s3.settings(self.bucket), **place, **self.access()}

    def environment(self, catalog: str) -> dict[str, str]:
        """The same settings as environment variables."""
        return environment(self.settings(catalog))
