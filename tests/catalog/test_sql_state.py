"""One statement sees all of its tables as they were at one moment, whatever is committed while it is prepared."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.iceberg.table_documents import TableDocument, TableFiles
from lakehouse.catalog.sql.lake_sql import LakeSql
from tests.catalog.scattered_lake import ScatteredLake, in_order

COUNTS = (
    "SELECT (SELECT count(*) FROM scattered.front), (SELECT count(*) FROM scattered.rear), "
    "(SELECT sum(row_count) FROM mosaico.topics)"
)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[ScatteredLake]:
    with ScatteredLake(tmp_path) as opened:
        yield opened


def record(lake: ScatteredLake, sequence: str) -> str:
    """A session of two topics with a hundred rows each, not finalized."""
    session = lake.begin(sequence)
    for path in ("front", "rear"):
        lake.upload(session, in_order(count=2), path)
    return session.uuid


def counts(lake: ScatteredLake) -> list[int]:
    with LakeSql(lake.lakehouse).opened(COUNTS) as statement:
        (row,) = statement.batches().read_all().to_pylist()
    return list(row.values())


def test_a_session_that_is_finalized_between_two_looks_is_seen_wholly_or_not_at_all(
    lake: ScatteredLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.lakehouse.sessions.finalize(record(lake, "first"))
    waiting = [record(lake, f"next-{number}") for number in range(3)]
    original = TableFiles.document

    def between(files: TableFiles, location: str) -> TableDocument:
        found = original(files, location)
        if interrupting and waiting:
            interrupting.clear()
            lake.lakehouse.sessions.finalize(waiting.pop())
            interrupting.append(True)
        return found

    # Each look at a table is followed by another session's commit to all of them.
    interrupting = [True]
    monkeypatch.setattr(TableFiles, "document", between)
    assert counts(lake) == [100, 100, 200]
    assert waiting == []
    assert counts(lake) == [400, 400, 800]


def test_a_table_whose_metadata_was_removed_between_pointer_and_look_is_looked_up_again(
    lake: ScatteredLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.lakehouse.sessions.finalize(record(lake, "first"))
    waiting = [record(lake, "second")]
    original = TableFiles.document

    def too_late(files: TableFiles, location: str) -> TableDocument:
        if waiting:
            lake.lakehouse.sessions.finalize(waiting.pop())
            raise StorageError("removed by maintenance in the meantime")
        return original(files, location)

    monkeypatch.setattr(TableFiles, "document", too_late)
    assert counts(lake) == [200, 200, 400]
    assert waiting == []
