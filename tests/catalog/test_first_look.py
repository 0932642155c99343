"""A process that starts beside a lake in an object store looks at all its tables, once each and many at a time."""

import threading
from pathlib import Path

import pytest

from tests.catalog.scattered_lake import ScatteredLake, in_order
from tests.s3_server import S3Server

TABLES = 6


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.new_bucket()


def test_a_new_process_reads_one_metadata_file_per_table(tmp_path: Path, s3: S3Server, bucket: str) -> None:
    database_url = f"sqlite:///{tmp_path / 'shared.db'}"
    store = s3.settings(bucket)
    with ScatteredLake(tmp_path / "one", database_url, store) as lake:
        session = lake.begin("drive")
        for number in range(TABLES):
            lake.upload(session, in_order(count=1), f"topic{number}")
        lake.lakehouse.sessions.finalize(session.uuid)
        with lake.lakehouse.database.snapshot() as connection:
            tables = len(lake.lakehouse.table_files.catalog.locations(connection))
    with ScatteredLake(tmp_path / "another machine", database_url, store) as lake:
        with s3.counted(bucket) as requests:
            lake.lakehouse.maintenance.run_pending()
        assert sorted(request.path.rpartition(".")[2] for request in requests) == ["json"] * tables
        assert len({request.path for request in requests}) == tables
        with s3.counted(bucket) as requests:
            lake.lakehouse.maintenance.run_pending()
        assert requests == []


def test_tables_in_an_object_store_are_looked_at_together(tmp_path: Path, s3: S3Server, bucket: str) -> None:
    with ScatteredLake(tmp_path, store=s3.settings(bucket)) as lake:
        everybody = threading.Barrier(TABLES)
        arrived = lake.lakehouse.table_files.at_once(lambda _: everybody.wait(timeout=20), range(TABLES))
        assert sorted(arrived) == list(range(TABLES))
