"""A lake whose tables are in a catalog of their own, and another engine that opens the same catalog."""

import signal
from pathlib import Path
from typing import Any

from pyiceberg.catalog.rest import RestCatalog

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.settings import Settings
from tests.catalog.small_lake import child_environment
from tests.forked import ForkedProgram
from tests.rest_catalog_server import RestCatalogServer


class ForeignLake:
    """One lake.

    Args:
        server: Keeps its tables.
        home: Where its files are.
        together: Whether it commits to several tables in one request.
        database_url: Of its database; empty: SQLite in its home.
    """

    def __init__(self, server: RestCatalogServer, home: Path, together: bool, database_url: str = "") -> None:
        self.server = server
        self.home = home
        self.together = together
        self.database_url = database_url
        self.catalog = server.new_catalog()

    @property
    def settings(self) -> Settings:
        return self.settings_with()

    def settings_with(self, **more: Any) -> Settings:
        """Settings of the lake, and these besides."""
        options: dict[str, Any] = {**self.server.settings(self.catalog), **more}
        return Settings.load(
            home=self.home, db_url=self.database_url, catalog_multi_table_commit=self._multi_table_commit, **options
        )

    @property
    def _multi_table_commit(self) -> str:
        return "always" if self.together else "never"

    def open(self, **more: Any) -> Lakehouse:
        return Lakehouse.open(self.settings_with(**more))

    def start(self, *arguments: str, crash_at: str = "") -> ForkedProgram:
        """A process that finalizes, deletes or resumes; killed at a step if one is named."""
        environment = {
            **child_environment(crash_at),
            **self.server.environment(self.catalog),
            "LAKEHOUSE_HOME": str(self.home),
            "MOSAICOD_DB_URL": self.database_url,
            "LAKEHOUSE_CATALOG_MULTI_TABLE_COMMIT": self._multi_table_commit,
        }
        output = self.home / f"process-{len(list(self.home.glob('process-*')))}.log"
        return ForkedProgram("tests.rebuild.finalizing_process", *arguments, environment=environment, output=output)

    def killed_at(self, step: str, command: str, sequence: str) -> None:
        """Finalize or delete a sequence in a process that is killed at this step."""
        process = self.start(command, sequence, crash_at=step)
        assert process.wait(120) == -signal.SIGKILL, f"{step} was not reached"

    def engine(self) -> RestCatalog:
        """The catalog as another engine opens it."""
        store = self.server.s3
        return RestCatalog(
            "engine",
            uri=self.catalog,
            warehouse=self.server.warehouse,
            token=self.server.token(),
            **{
                "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
                "s3.endpoint": store.endpoint,
                "s3.region": store.region,
                "s3.access-key-id": store.access_key,
                "s3.secret-access-key": store.secret_key,
            },
        )

    def engine_rows(self, identifier: str, snapshot_id: int | None = None) -> list[str]:
        """The sequence of every row that another engine reads, now or in a former snapshot."""
        table = self.engine().load_table(identifier)
        rows = table.scan(selected_fields=("sequence",), snapshot_id=snapshot_id).to_arrow()
        names: list[str] = rows["sequence"].to_pylist()
        return sorted(names)


def rows_read(lakehouse: Lakehouse, sequence: str, path: str) -> int:
    """Rows of a topic as our doors read them."""
    return sum(batch.num_rows for batch in lakehouse.reader.read(lakehouse.topics.get(TopicLocator(sequence, path))))
