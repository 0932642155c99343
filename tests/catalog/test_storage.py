"""Files of the warehouse, by URI."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO

from lakehouse.catalog.errors import ConfigurationError, StorageError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.storage import Warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse.open(Settings.load(home=tmp_path, store_endpoint=""))


def write(warehouse: Warehouse, name: str, content: bytes = b"rows") -> str:
    uri = f"{warehouse.uri}/{name}"
    with warehouse.open_output(uri) as stream:
        stream.write(content)
    warehouse.make_durable(uri)
    return uri


def test_what_was_written_is_read_and_listed(warehouse: Warehouse) -> None:
    uris = [write(warehouse, name) for name in ("a", "imu/table/data/b", "imu/table/c")]
    with warehouse.open_input(uris[1]) as stream:
        assert stream.read() == b"rows"
    listed = list(warehouse.list_files(warehouse.uri))
    assert {file.uri for file in listed} == set(uris)
    assert {file.size for file in listed} == {4}
    assert all(file.modified_ns == os.stat(file.uri.removeprefix("file://")).st_mtime_ns for file in listed)
    assert [file.uri for file in warehouse.list_files(f"{warehouse.uri}/imu/table/data")] == [uris[1]]


def test_a_directory_that_does_not_exist_lists_nothing(warehouse: Warehouse) -> None:
    assert list(warehouse.list_files(f"{warehouse.uri}/nowhere")) == []


def test_deleting_passes_over_missing_files(warehouse: Warehouse) -> None:
    uri = write(warehouse, "a")
    warehouse.delete([f"{warehouse.uri}/missing/b", uri, uri])
    assert not warehouse.exists(uri)


def test_deleting_tries_every_file_before_it_fails(warehouse: Warehouse) -> None:
    directory = f"{warehouse.uri}/directory"
    write(warehouse, "directory/a")
    uri = write(warehouse, "b")
    with pytest.raises(StorageError):
        warehouse.delete([directory, uri])
    assert not warehouse.exists(uri)


def test_errors_name_no_path_of_the_server(warehouse: Warehouse, tmp_path: Path) -> None:
    write(warehouse, "file")
    with pytest.raises(StorageError) as missing:
        warehouse.open_input(f"{warehouse.uri}/missing")
    with pytest.raises(StorageError) as blocked:
        warehouse.open_output(f"{warehouse.uri}/file/below")
    with pytest.raises(StorageError) as foreign:
        warehouse.open_input("s3://other/file")
    for error in (missing, blocked, foreign):
        assert str(tmp_path) not in error.value.message


@pytest.mark.parametrize("name", ["with space", "größe", "100%25", "a+b=c"])
def test_stock_pyiceberg_finds_the_same_file_under_the_same_uri(tmp_path: Path, name: str) -> None:
    settings = Settings.load(home=tmp_path / name, store_endpoint="", db_url="")
    warehouse = Warehouse.open(settings)
    uri = write(warehouse, "data/file")
    assert uri == f"{settings.warehouse_uri}/data/file"
    assert (tmp_path / name / "warehouse" / "data" / "file").exists()
    with PyArrowFileIO(warehouse.iceberg_properties()).new_input(uri).open() as stream:
        assert stream.read() == b"rows"


@pytest.mark.parametrize("name", ["with space", "größe", "100%25", "a+b=c"])
def test_the_embedded_database_lies_in_the_home_whatever_its_name(tmp_path: Path, name: str) -> None:
    settings = Settings.load(home=tmp_path / name, store_endpoint="", db_url="")
    with Lakehouse.open(settings):
        assert sorted(path.name for path in tmp_path.iterdir()) == [name]
        assert (tmp_path / name / "lakehouse.db").exists()
    catalog = SqlCatalog("lake", uri=settings.database_url, warehouse=settings.warehouse_uri)
    catalog.create_namespace("mine")
    catalog.create_table("mine.numbers", pa.schema([("a", pa.int64())])).append(pa.table({"a": [1]}))
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("name", ["a#b", "a?b"])
def test_directories_that_no_uri_can_name_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError):
        Warehouse.open(Settings.load(home=tmp_path / name, store_endpoint=""))


def test_a_file_endpoint_places_the_bucket_below_it(tmp_path: Path) -> None:
    settings = Settings.load(store_endpoint=tmp_path.as_uri(), store_bucket="bucket")
    assert Warehouse.open(settings).uri == f"file://{tmp_path}/bucket"
