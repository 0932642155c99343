"""A warehouse in a real S3 server: what it is asked for, how often, and what happens when it says no."""

import ipaddress
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pyiceberg.io.pyarrow import PyArrowFileIO

from lakehouse.catalog.errors import ConfigurationError, MissingFileError, StorageError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.maintenance.orphans import FOREIGN_GRACE_S
from lakehouse.catalog.object_ranges import ObjectRanges, Part
from lakehouse.catalog.object_store import ObjectStore
from lakehouse.catalog.reading.remote_file import TAIL_BYTES
from lakehouse.catalog.settings import MIB, Settings
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.time_window import TimeWindow
from tests.processes import free_port
from tests.s3_server import Request, S3Server, s3_server

DAY_NS = 86_400 * 10**9
SCHEMA = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("value", pa.float64())])
ROWS = 400_000
TIMESTAMP_LEAF = 2


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.new_bucket()


@pytest.fixture
def settings(s3: S3Server, bucket: str, tmp_path: Path) -> Settings:
    return Settings.load(home=tmp_path, db_url="", **s3.settings(bucket))


@pytest.fixture
def warehouse(settings: Settings) -> Warehouse:
    return Warehouse.open(settings)


def write(warehouse: Warehouse, name: str, content: bytes = b"rows") -> str:
    uri = f"{warehouse.uri}/{name}"
    with warehouse.open_output(uri) as stream:
        stream.write(content)
    warehouse.make_durable(uri)
    return uri


def operations(requests: list[Request]) -> Counter[str]:
    return Counter(request.operation for request in requests)


@pytest.mark.parametrize("name", ["with space", "größe", "100%25", "a+b=c", "sequence=a:b/f"])
def test_names_are_taken_literally_by_us_and_by_stock_pyiceberg(warehouse: Warehouse, name: str) -> None:
    uri = write(warehouse, f"data/{name}")
    assert [file.uri for file in warehouse.list_files(warehouse.uri)] == [uri]
    with warehouse.open_input(uri) as stream:
        assert stream.read() == b"rows"
    assert warehouse.read(uri) == b"rows"
    assert warehouse.read_range(uri, 1, 3) == b"ow"
    with PyArrowFileIO(warehouse.iceberg_properties()).new_input(uri).open() as stream:
        assert stream.read() == b"rows"
    warehouse.delete([uri])
    assert list(warehouse.list_files(warehouse.uri)) == []


def test_a_small_file_costs_one_request_to_write_and_one_to_read(
    s3: S3Server, bucket: str, warehouse: Warehouse
) -> None:
    with s3.counted(bucket) as requests:
        uri = write(warehouse, "a")
    assert operations(requests) == {"PutObject": 1}
    with s3.counted(bucket) as requests:
        assert warehouse.read(uri) == b"rows"
    assert operations(requests) == {"GetObject": 1}


def test_a_part_costs_one_request_that_tells_the_size_of_the_whole(
    s3: S3Server, bucket: str, warehouse: Warehouse
) -> None:
    uri = write(warehouse, "a", b"0123456789")
    with s3.counted(bucket) as requests:
        assert warehouse.read_range(uri, 2, 5) == b"234"
        assert warehouse.read_tail(uri, 4) == (b"6789", 10)
        assert warehouse.read_tail(uri, 40) == (b"0123456789", 10)
    assert operations(requests) == {"GetObject": 3}
    with pytest.raises(MissingFileError):
        warehouse.read_range(f"{warehouse.uri}/missing", 0, 1)


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9000", "https://store.example:9000/"])
@pytest.mark.parametrize("bucket", ["lake", "my.lake"])
def test_parts_are_asked_for_where_botocore_would_ask(bucket: str, endpoint: str) -> None:
    key = "sequence=a:b/größe +%25~é.parquet"
    asked: list[str] = []

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        asked.append(request.url)
        return AWSResponse(request.url, 206, HeadersDict({"Content-Range": "bytes 0-0/1"}), BytesIO(b"x"))

    class Connections:
        def send(self, request: AWSPreparedRequest) -> AWSResponse:
            response = answer(request)
            response._content = b"x"
            return response

    store = ObjectStore(bucket, endpoint, "eu-central-1", "access", "secret")
    store._client.meta.events.register("before-send.s3.GetObject", answer)
    store._client.get_object(Bucket=bucket, Key=key)
    ranges = ObjectRanges.of(store._client, bucket, store._session.get_credentials(), Connections())
    assert ranges.get(key, "bytes=0-0") == Part(b"x", 1)
    assert asked[0] == asked[1]


def test_what_a_store_refuses_is_asked_for_in_the_general_way_and_soon_in_the_other_once_a_minute(
    s3: S3Server, bucket: str, settings: Settings, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    write(warehouse, "a", b"0123456789")
    store = ObjectStore.from_settings(settings)
    credentials, connections = store._session.get_credentials(), URLLib3Session()
    now = 0.0
    address = f"{s3.endpoint}/{bucket}/"
    elsewhere = ObjectRanges(address, "eu-north-9", credentials, connections, clock=lambda: now)
    vars(store)["_ranges"] = elsewhere
    with s3.counted(bucket) as requests:
        assert [store.read_range("a", 2, 5) for _ in range(8)] == [b"234"] * 8
    assert Counter(request.status >= 400 for request in requests) == {True: 5, False: 8}
    now = 60.0
    with s3.counted(bucket) as requests:
        assert [store.read_range("a", 2, 5) for _ in range(3)] == [b"234"] * 3
    assert Counter(request.status >= 400 for request in requests) == {True: 1, False: 3}
    assert sum("the short way" in record.message for record in caplog.records) == 1
    elsewhere._region, now = s3.region, 120.0  # what was wrong is put right
    with s3.counted(bucket) as requests:
        assert [store.read_range("a", 2, 5) for _ in range(3)] == [b"234"] * 3
    assert Counter(request.status >= 400 for request in requests) == {False: 3}


def test_a_store_that_was_away_is_read_by_the_short_way_as_soon_as_it_is_back(tmp_path: Path) -> None:
    with s3_server(tmp_path) as before:
        bucket = before.new_bucket()
        settings = Settings.load(home=tmp_path, db_url="", **before.settings(bucket))
        write(Warehouse.open(settings), "a", b"0123456789")
        store = ObjectStore.from_settings(settings)
        assert store.read_range("a", 2, 5) == b"234"
    assert store._ranges is not None
    assert [store._ranges.get("a", "bytes=2-4") for _ in range(8)] == [None] * 8
    general: list[str] = []
    store._client.meta.events.register("before-send.s3.GetObject", lambda request, **_: general.append(request.url))
    with s3_server(tmp_path, port=before.port, keys=(before.access_key, before.secret_key)):
        assert store.read_range("a", 2, 5) == b"234"
    assert general == []


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-5/10\r\nContent-Length: 4\r\n\r\n"
    asked = 0

    class Store(BaseRequestHandler):
        def handle(self) -> None:
            nonlocal asked
            while b"\r\n\r\n" not in self.request.recv(1 << 16):
                pass
            asked += 1
            self.request.sendall(head + (b"23" if asked == 1 else b"2345"))

    with ThreadingTCPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = ObjectStore("lake", f"http://127.0.0.1:{server.server_address[1]}", "us-east-1", "access", "secret")
        assert store.read_range("a", 2, 6) == b"2345"
        server.shutdown()
    assert asked == 2


def test_a_large_file_is_sent_in_parts_and_appears_whole(s3: S3Server, bucket: str, warehouse: Warehouse) -> None:
    content = bytes(np.random.default_rng(1).bytes(24 * MIB))
    with s3.counted(bucket) as requests:
        stream = warehouse.open_output(f"{warehouse.uri}/a")
        stream.write(content)
        assert list(warehouse.list_files(warehouse.uri)) == []
        stream.close()
    assert operations(requests)["CreateMultipartUpload"] == operations(requests)["CompleteMultipartUpload"] == 1
    assert operations(requests)["UploadPart"] >= 2
    with warehouse.open_input(f"{warehouse.uri}/a") as found:
        assert found.read() == content


def test_files_are_listed_and_deleted_by_the_thousand(s3: S3Server, bucket: str, warehouse: Warehouse) -> None:
    uris = [f"{warehouse.uri}/t{number % 20}/data/{number}" for number in range(1100)]
    for uri in uris:
        path = s3.root / uri.removeprefix("s3://")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with s3.counted(bucket) as requests:
        assert {file.uri for file in warehouse.list_files(warehouse.uri)} == set(uris)
        warehouse.delete([*uris, f"{warehouse.uri}/missing"])
    assert operations(requests) == {"ListObjectsV2": 2, "DeleteObjects": 2}
    assert list(warehouse.list_files(warehouse.uri)) == []


def test_the_server_of_these_tests_honours_conditions_and_ranges(
    s3: S3Server, bucket: str, settings: Settings, warehouse: Warehouse
) -> None:
    write(warehouse, "a", b"first")
    client = ObjectStore.from_settings(settings)._client
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="a", Body=b"second", IfNoneMatch="*")
    etag = client.head_object(Bucket=bucket, Key="a")["ETag"]
    client.put_object(Bucket=bucket, Key="a", Body=b"second", IfMatch=etag)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="a", Body=b"third", IfMatch=etag)
    assert client.get_object(Bucket=bucket, Key="a", Range="bytes=2-4")["Body"].read() == b"con"


def record(lake: Lakehouse, sequence: str, *paths: str, rows: int = ROWS) -> None:
    lake.sequences.create(sequence, {})
    session = lake.sessions.create(sequence)
    for path in paths:
        locator = TopicLocator(sequence, path)
        topic = lake.topics.create(session.uuid, locator, "default", "Floating64")
        values = np.random.default_rng(1).normal(size=rows)
        batch = pa.record_batch([pa.array(DAY_NS + np.arange(rows) * 1000), pa.array(values)], schema=SCHEMA)
        with lake.topics.begin_upload(locator, topic, SCHEMA) as upload:
            for start in range(0, rows, 10_000):
                upload.write(batch.slice(start, 10_000))
            upload.finish()
    lake.sessions.finalize(session.uuid)


@pytest.fixture
def row_groups(settings: Settings) -> Settings:
    """A lake with a topic in one data file of several row groups."""
    small = settings.model_copy(update={"encoding_buffer_size": MIB})
    with Lakehouse.open(small) as lake:
        record(lake, "drive", "numbers")
    return small


def row_groups_of(path: Path, window: TimeWindow) -> int:
    """How many row groups of a file hold rows of a window."""
    footer = pq.read_metadata(path)
    bounds = [footer.row_group(number).column(TIMESTAMP_LEAF).statistics for number in range(footer.num_row_groups)]
    return sum(each.max >= (window.start_ns or 0) and each.min < (window.end_ns or each.min + 1) for each in bounds)


@pytest.mark.parametrize("is_counted_first", [False, True])
def test_a_window_reads_one_footer_and_the_row_groups_it_returns(
    s3: S3Server, bucket: str, row_groups: Settings, is_counted_first: bool
) -> None:
    with Lakehouse.open(row_groups) as lake:
        topic = lake.topics.get(TopicLocator("drive", "numbers"))
        for share, footers in ((0.01, 1), (0.3, 0)):
            window = TimeWindow(DAY_NS + 100_000_000, DAY_NS + 100_000_000 + int(share * ROWS * 1000))
            with s3.counted(bucket) as requests:
                if is_counted_first:  # as the client does, with GetFlightInfo
                    assert lake.reader.window_info(topic, window).row_count == share * ROWS
                assert sum(batch.num_rows for batch in lake.reader.read(topic, window)) == share * ROWS
            of_data = [request for request in requests if request.path.endswith(".parquet")]
            (file,) = {s3.root / request.path[1:] for request in of_data}
            touched = row_groups_of(file, window)
            assert touched >= 3 if share > 0.1 else touched <= 2
            # Only what was fetched to be counted is fetched no second time.
            assert set(operations(of_data)) == {"GetObject"}
            assert footers + touched - is_counted_first * (not footers) <= len(of_data) <= footers + touched
            assert (
                sum(request.sent for request in of_data) - footers * TAIL_BYTES < 2 * share * file.stat().st_size + MIB
            )
            assert len(requests) - len(of_data) == (3 if footers else 0), "metadata, manifest list and manifest, once"


def test_small_row_groups_are_asked_for_together_and_come_in_their_order(
    bucket: str, row_groups: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, together = itertools.count(), threading.Barrier(2)
    read_range = ObjectStore.read_range

    def meeting(self: ObjectStore, key: str, start: int, stop: int) -> bytes:
        # Of the second and the third nobody gets an answer before both have been asked for.
        if next(numbers) in (1, 2):
            together.wait(30)
        return read_range(self, key, start, stop)

    monkeypatch.setattr(ObjectStore, "read_range", meeting)
    with Lakehouse.open(row_groups) as lake:
        read = list(lake.reader.read(lake.topics.get(TopicLocator("drive", "numbers"))))
    assert next(numbers) > 3
    times = np.concatenate([batch.column("timestamp_ns").to_numpy() for batch in read])
    assert (times == DAY_NS + np.arange(ROWS) * 1000).all()


def test_a_small_file_is_read_in_one_request(s3: S3Server, bucket: str, settings: Settings) -> None:
    with Lakehouse.open(settings) as lake:
        record(lake, "drive", "numbers", rows=1000)
        topic = lake.topics.get(TopicLocator("drive", "numbers"))
        with s3.counted(bucket) as requests:
            assert sum(batch.num_rows for batch in lake.reader.read(topic)) == 1000
        assert operations([request for request in requests if request.path.endswith(".parquet")]) == {"GetObject": 1}


def test_a_writer_killed_in_the_middle_leaves_nothing_that_cleanup_does_not_find(
    s3: S3Server, bucket: str, settings: Settings
) -> None:
    program = (
        "import sys; from lakehouse.catalog.settings import Settings; from lakehouse.catalog.storage import Warehouse\n"
        "warehouse = Warehouse.open(Settings.load())\n"
        "stream = warehouse.open_output(warehouse.uri + '/half')\n"
        "stream.write(b'x' * (24 << 20)); stream.flush(); print('written', flush=True); sys.stdin.read()"
    )
    environment = {f"MOSAICOD_{name.upper()}": value for name, value in s3.settings(bucket).items()}
    writer = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"written\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    store = ObjectStore.from_settings(settings)
    (unfinished,) = store.unfinished_uploads()
    assert unfinished.key == "half"
    with Lakehouse.open(settings) as lake:
        assert list(lake.warehouse.list_files(lake.warehouse.uri)) == []

        def clean(after_s: int) -> int:
            cycle = run_cleanup_cycle(
                lake.database,
                lake.table_files,
                lake.committer,
                settings,
                now_ns=lambda: time.time_ns() + after_s * 10**9,
            )
            assert cycle is not None
            return cycle.orphans.aborted_uploads

        assert clean(FOREIGN_GRACE_S - 600) == 0
        assert clean(FOREIGN_GRACE_S + 600) == 1
    assert list(store.unfinished_uploads()) == []


def test_what_is_wrong_is_said_when_the_lake_is_opened(s3: S3Server, bucket: str, settings: Settings) -> None:
    def opened(**changes: object) -> None:
        Warehouse.open(Settings.load(**{**s3.settings(bucket), **changes}))

    opened()
    with pytest.raises(ConfigurationError, match="no bucket 'nowhere'"):
        opened(store_bucket="nowhere")
    with pytest.raises(ConfigurationError, match="MOSAICOD_STORE_SECRET_KEY"):
        opened(store_secret_key="wrong")
    with pytest.raises(StorageError, match="does not answer"):
        opened(store_endpoint=f"http://127.0.0.1:{free_port()}")


def test_requests_are_signed_for_the_region_of_the_store(tmp_path: Path) -> None:
    with s3_server(region="eu-south-7") as server:
        place = server.settings(server.new_bucket())
        with pytest.raises(ConfigurationError):
            Warehouse.open(Settings.load(**place))
        warehouse = Warehouse.open(Settings.load(**place, store_region="eu-south-7"))
        write(warehouse, "a")
        warehouse.delete([f"{warehouse.uri}/a"])


def certificate(directory: Path) -> tuple[Path, Path]:
    """Certificate and key of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (directory / "cert.pem").write_bytes(built.public_bytes(encoding))
    (directory / "key.pem").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "cert.pem", directory / "key.pem"


def test_a_store_behind_https_is_trusted_by_its_certificate_only(tmp_path: Path) -> None:
    pair = certificate(tmp_path)
    with s3_server(certificate=pair) as server:
        place = server.settings(server.new_bucket())
        assert place["store_endpoint"].startswith("https://")
        warehouse = Warehouse.open(Settings.load(**place, store_ca_file=str(pair[0])))
        uri = write(warehouse, "a")
        with warehouse.open_input(uri) as stream:
            assert stream.read() == b"rows"
        with server.counted(place["store_bucket"]) as requests:
            assert warehouse.read_range(uri, 1, 3) == b"ow"
        assert operations(requests) == {"GetObject": 1}
        with pytest.raises(StorageError, match="does not answer"):
            Warehouse.open(Settings.load(**place))


def test_errors_name_neither_keys_nor_addresses(s3: S3Server, bucket: str, settings: Settings) -> None:
    warehouse = Warehouse.open(settings)
    with pytest.raises(StorageError) as missing:
        warehouse.open_input(f"{warehouse.uri}/missing")
    with pytest.raises(StorageError) as foreign:
        warehouse.open_input("s3://nowhere/file")
    for error in (missing, foreign):
        assert str(s3.port) not in error.value.message
        assert s3.access_key not in error.value.message
    assert s3.secret_key not in repr(ObjectStore.from_settings(settings))
