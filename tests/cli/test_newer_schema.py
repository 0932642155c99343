"""A lake that a newer version has brought to its schema is left alone by this one, which says why."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, create_engine, select, text

from lakehouse.catalog.control_plane.migrate import VERSION_TABLE
from lakehouse.catalog.errors import ConfigurationError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from tests.cli.conftest import Run
from tests.flight_gateway.test_run_command import run_until_it_fails

NEWER = "9999_of_a_later_version"
REASON = f"the database schema is at revision '{NEWER}', which this version does not know"


def everything(connection: Connection) -> dict[str, Any]:
    """Columns, indexes and rows of all tables."""
    reflected = MetaData()
    reflected.reflect(connection)
    return {
        name: (
            [(column.name, str(column.type), column.nullable) for column in table.columns],
            sorted(str(index.name) for index in table.indexes),
            sorted(repr(tuple(row)) for row in connection.execute(select(table))),
        )
        for name, table in reflected.tables.items()
    }


def test_nothing_opens_a_lake_of_a_newer_schema_nor_changes_it(
    tmp_path: Path, database_url: str, lakehouse: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSAICOD_DB_URL", database_url)
    settings = Settings.load()
    with Lakehouse.open(settings) as lake:
        lake.sequences.create("drive", {"weather": "rain"})
    engine = create_engine(settings.database_url)
    with engine.begin() as connection:
        # As a later version would leave it: a revision that nobody here knows, a table and a column of its own.
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{NEWER}'"))
        connection.execute(text("CREATE TABLE of_a_later_version (id INTEGER PRIMARY KEY)"))
        connection.execute(text("ALTER TABLE sequences ADD COLUMN of_a_later_version INTEGER"))
        before = everything(connection)
    assert before["sequences"][2]

    with pytest.raises(ConfigurationError, match="upgrade this installation") as refused:
        Lakehouse.open(settings)
    assert REASON in refused.value.message
    listed = lakehouse("sequences")
    assert (listed.returncode, listed.stdout) == (1, "")
    assert listed.stderr.startswith(f"error: {REASON}")
    home = {"LAKEHOUSE_HOME": str(settings.home), "MOSAICOD_DB_URL": database_url}
    assert REASON in run_until_it_fails(tmp_path, "--port", "0", **home)

    with engine.begin() as connection:
        assert everything(connection) == before
    engine.dispose()
