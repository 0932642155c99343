"""What uploads hold in the gateway's memory: bounded by uploads and encoders, never by what is sent."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa

from lakehouse.catalog.settings import MIB
from lakehouse.catalog.writing.encoder_pool import Job
from tests.flight_gateway.conftest import Served
from tests.flight_gateway.raw_client import PLAIN_SCHEMA, SERVICE, RawClient, upload_messages

UPLOADS, ENCODERS = 8, 2
ROW_GROUP, MESSAGE = 2 * MIB, MIB // 2
MESSAGES = 20

GATEWAY = """
import sys
from pathlib import Path
import pyarrow as pa
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.flight_gateway.server import Gateway

home, row_group, encoders = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
settings = Settings.load(
    home=home, db_url="", store_endpoint="", encoding_buffer_size=row_group, max_concurrent_writes=encoders
)
with Lakehouse.open(settings) as lake, Gateway(lake, port=0) as gateway:
    print(gateway.uri.rpartition(":")[2], flush=True)
    sys.stdin.readline()
    print(pa.default_memory_pool().max_memory(), lake.upload_budget.peak)
"""


def rows(number: int) -> pa.RecordBatch:
    """`MESSAGE` bytes of values that no encoding makes smaller."""
    count = MESSAGE // 16
    times = pa.array(np.arange(number * count, (number + 1) * count))
    return pa.record_batch([times, pa.array(np.random.default_rng(number).normal(size=count))], schema=PLAIN_SCHEMA)


def test_eight_uploads_hold_a_row_group_each_and_two_for_each_encoder(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", GATEWAY, str(tmp_path), str(ROW_GROUP), str(ENCODERS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        port = int(gateway.stdout.readline())
        batches = [rows(number) for number in range(MESSAGES)]
        with closing(RawClient(port)) as raw, ThreadPoolExecutor(UPLOADS) as clients:
            raw.action("sequence_create", locator=name)
            session = raw.action("session_create", locator=name)
            topics = [raw.add_topic(name, session, f"sensor/{number}") for number in range(UPLOADS)]
            list(clients.map(lambda topic: raw.upload(topic, *batches), topics))
            raw.action("session_finalize", session_uuid=session["uuid"])
            counts = [b'"total_row_count":%d,' % (MESSAGES * MESSAGE // 16)] * UPLOADS
            found = raw.describe(name).endpoints
            assert all(count in each.app_metadata for count, each in zip(counts, found, strict=True))
        arrow_peak, rows_peak = map(int, gateway.communicate("\n", timeout=60)[0].split())
    # A row group ends with the message that completes it.
    bound = (UPLOADS + 2 * ENCODERS) * (ROW_GROUP + MESSAGE + (64 << 10))
    assert rows_peak <= bound < UPLOADS * MESSAGES * MESSAGE / 2
    # Besides the rows: what each upload has just received, and what encoders need for a row group.
    assert arrow_peak <= bound + UPLOADS * 2 * MESSAGE + ENCODERS * 2 * ROW_GROUP


def test_a_client_gets_little_further_than_the_gateway(served: Served, raw: RawClient, name: str) -> None:
    lake = served.lakehouse
    row_group = lake.settings.encoding_buffer_size
    messages = upload_messages(raw.new_topic(name), *map(rows, range(4 * row_group // MESSAGE)))
    taken, release = threading.Event(), threading.Event()
    sent = 0

    def requests() -> Iterator[bytes]:
        nonlocal sent
        for each in messages:
            yield each
            sent += len(each)

    def occupy() -> None:
        release.wait(60)

    def upload() -> None:
        assert list(raw.channel.stream_stream(SERVICE + "DoPut")(requests(), timeout=120)) == []
        taken.set()

    for _ in range(lake.settings.concurrent_writes):
        lake.encoders.lane().submit(Job(occupy, lambda: None))
    watch = threading.Thread(target=upload)
    try:
        watch.start()
        before = -1
        # Nothing has to arrive within a time: a client that was slow has sent less.
        while sent < row_group or before != sent:
            before = sent
            time.sleep(0.3)
        assert sent <= row_group + 8 * MIB
        assert not taken.is_set()
    finally:
        release.set()
    watch.join(60)
    assert taken.is_set()
