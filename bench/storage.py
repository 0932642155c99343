"""An S3-compatible store as the warehouse against local files: reads, queries, and what the store is asked for."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow.parquet as pq

from bench.client import Client, Transfer
from bench.comparison import first_batch_ms, throughput
from bench.gateway_process import GatewayProcess
from bench.history import SmallTopic, small_topics
from bench.measuring import Spread, interleave, ratio, take_turns
from bench.report import Line, Section
from bench.rows import IMU_PERIOD_NS, MIB, START_NS, RowSource
from bench.runs import Run
from bench.transfers import create_topic, download, upload
from bench.workers import Workers
from lakehouse.ontology.storage_names import TIMESTAMP_COLUMN
from tests.s3_server import Request, S3Server, s3_server
from tests.warehouses import environment

TOPIC_SIZE = 400 * MIB
WINDOW_SHARE = 0.01
TOPICS = 30
FLEET = 20
FLEET_TOPIC_SIZE = 16 * MIB
TOPIC = "drive/sensor"
TABLE = "/imu/sensor/"
# Each request counts, none is saved by what an earlier process left on the disk.
COLD = {"LAKEHOUSE_METADATA_CACHE_SIZE": "0"}
# Lies between the bounds of every file and row group and equals no value: all rows are looked at.
EVERYWHERE = {"IMU.acceleration.x": {"$between": [0.1234561, 0.1234562]}}
NOWHERE = {"IMU.acceleration.x": {"$gt": 1e6}}


def measure(run: Run) -> Section:
    section = Section(
        "S3 against local files",
        "Two lakes with the same rows, one on local files, one on a store that speaks S3 (versitygw, on the same disk "
        "and the same processors, without the latency of a network), each behind a gateway of its own. *All* is a "
        f"topic of {run.size(TOPIC_SIZE) / 1e6:,.0f} MB, *1 %* a window of it with GetFlightInfo and DoGet. A scan is "
        "a query that bounds exclude nowhere, so that one column of every file is read; the other query is answered by "
        "bounds. Requests are those in the log of the store about the tables concerned, of a gateway that has just "
        "started and has no copy of anything.",
    )
    with s3_server(run.directory / "store") as store, Workers(1, _rows) as workers:
        lakes = {"files": _Lake(run.directory / "files", {}), "S3": _Lake(run.directory / "s3", _on(store))}
        for name, lake in lakes.items():
            filled = run.step(f"S3, upload to {name}", 1)
            with lake.gateway() as gateway:
                _fill(run, gateway, workers)
            filled()
        section.lines += _speeds(run, lakes, workers)
        section.lines += _requests(lakes["S3"], store, run)
    return section


def _rows(number: int) -> RowSource:
    return RowSource.imu(number)


def _on(store: S3Server) -> dict[str, str]:
    return environment(store.settings(store.new_bucket()))


@dataclass(frozen=True)
class _Lake:
    home: Path
    settings: Mapping[str, str]

    @property
    def bucket(self) -> str:
        return self.settings["MOSAICOD_STORE_BUCKET"]

    @contextmanager
    def gateway(self, **settings: str) -> Iterator[GatewayProcess]:
        with GatewayProcess(self.home, environment={**self.settings, **settings}) as running:
            yield running


def _fill(run: Run, gateway: GatewayProcess, workers: Workers) -> None:
    sizes = {TOPIC.partition("/")[0]: run.size(TOPIC_SIZE)}
    sizes |= {f"fleet-{number}": run.size(FLEET_TOPIC_SIZE) for number in range(FLEET)}
    with Client(gateway.port) as client:
        for sequence, size in sizes.items():
            session = client.open_session(sequence)
            topic = workers.run(create_topic, (gateway.port, session, f"{sequence}/sensor"))[0]
            workers.run(upload, (gateway.port, topic, size))
            client.action("session_finalize", session_uuid=session)


def _speeds(run: Run, lakes: Mapping[str, _Lake], workers: Workers) -> list[Line]:
    with ExitStack() as stack:
        gateways = {name: stack.enter_context(lake.gateway()) for name, lake in lakes.items()}
        clients = {name: stack.enter_context(Client(gateway.port)) for name, gateway in gateways.items()}
        places = {name: count() for name in lakes}

        def all_of_it(name: str) -> Transfer:
            return workers.run(download, (gateways[name].port, TOPIC))[0]

        def window(name: str) -> Transfer:
            return workers.run(download, (gateways[name].port, TOPIC, *_window(run, next(places[name]))))[0]

        def query(name: str, conditions: Mapping[str, Any]) -> float:
            started = monotonic()
            clients[name].action("query", ontology=conditions)
            return 1e3 * (monotonic() - started)

        rounds = run.rounds(5)
        whole = take_turns(
            {name: partial(all_of_it, name) for name in lakes}, rounds, run.step("S3, read", rounds + 1, 2)
        )
        windows = take_turns(
            {name: partial(window, name) for name in lakes}, 3 * rounds, run.step("S3, 1 %", 3 * rounds + 1, 2)
        )
        queries = {
            kind: interleave(
                {name: partial(query, name, conditions) for name in lakes},
                rounds,
                run.step(f"S3, query, {kind}", rounds + 1, 2),
            )
            for kind, conditions in (("scan", EVERYWHERE), ("bounds", NOWHERE))
        }
    scanned = run.size(TOPIC_SIZE) + FLEET * run.size(FLEET_TOPIC_SIZE)
    rows = scanned / (workers.run(_bytes_per_row, ())[0])
    return [
        _against_files("read, all", whole),
        _against_files("read, 1 %", windows),
        _times("read, 1 %, first batch", {name: first_batch_ms(done) for name, done in windows.items()}),
        _times(f"query, scan of {rows / 1e6:.1f}M rows in {FLEET + 1} files or more", queries["scan"]),
        _times("query answered by bounds", queries["bounds"]),
    ]


def _bytes_per_row(rows: RowSource) -> float:
    batch = rows.batches[0]
    return float(batch.nbytes / batch.num_rows)


def _window(run: Run, number: int) -> tuple[int, int]:
    """One of a sequence of windows, which the golden ratio spreads over the topic."""
    probe = RowSource.imu(batch_bytes=MIB, pool_bytes=MIB)
    length = run.size(TOPIC_SIZE) / _bytes_per_row(probe) * IMU_PERIOD_NS
    place = (0.37 + 0.618 * number) % (1 - WINDOW_SHARE)
    return int(START_NS + length * place), int(START_NS + length * (place + WINDOW_SHARE))


def _against_files(what: str, found: Mapping[str, Sequence[Transfer]]) -> Line:
    return throughput(what, {"ours": found["S3"], "files": found["files"]}, ["files"], has_goal=False)


def _times(what: str, found: Mapping[str, Spread]) -> Line:
    return Line(
        what,
        found["S3"].text(unit="ms"),
        f"files {found['files'].text()} ms",
        ratio(found["S3"], found["files"]).text(2),
    )


def _requests(lake: _Lake, store: S3Server, run: Run) -> list[Line]:
    kinds = small_topics(TOPICS)
    with lake.gateway() as gateway, Client(gateway.port) as client:
        # The tables exist from here on.
        client.action("session_finalize", session_uuid=_upload_small(client, "small-0", kinds))
        sessions = [_upload_small(client, f"small-{number}", kinds) for number in (1, 2)]
    lines = []
    with lake.gateway(**COLD) as gateway, Client(gateway.port) as client:

        def asked(action: Callable[[], object]) -> list[Request]:
            with store.counted(lake.bucket) as requests:
                action()
            return requests

        lines.append(_counted("open a topic", asked(partial(client.ticket, TOPIC))))
        start_ns, end_ns = _window(run, 0)
        known: set[str] = set()
        for windows_later in (0, 5):
            later_ns = windows_later * (end_ns - start_ns)
            window = start_ns + later_ns, end_ns + later_ns
            requests = asked(partial(_read, client, window))
            lines.append(_window_line(store, requests, window, known))
        for which, session in zip(("first", "second"), sessions, strict=True):
            requests = asked(partial(client.action, "session_finalize", session_uuid=session))
            lines.append(_counted(f"finalize {TOPICS} topics, the {which} time", requests))
    return lines


def _read(client: Client, window: tuple[int, int]) -> None:
    client.download(client.ticket(TOPIC, *window))


def _upload_small(client: Client, sequence: str, kinds: Sequence[SmallTopic]) -> str:
    session = client.open_session(sequence)
    for kind in kinds:
        topic = client.create_topic(session, f"{sequence}/{kind.path}", kind.rows.tag, kind.rows.serialization_format)
        client.upload(topic, kind.rows.schema, [kind.batch])
    return session


def _counted(what: str, requests: Sequence[Request]) -> Line:
    return Line(f"requests: {what}", _text(requests))


def _window_line(store: S3Server, requests: Sequence[Request], window: tuple[int, int], known: set[str]) -> Line:
    """Requests for a window; `known` are the files whose footers have been read, and grows."""
    of_table = [request for request in requests if TABLE in request.path]
    of_data = [request for request in requests if request.path.endswith(".parquet")]
    files = {request.path for request in of_data}
    row_groups = sum(_row_groups(store.root / path[1:], window) for path in files)
    footers = len(files - known)
    known |= files
    wanted = footers + row_groups
    return Line(
        f"requests: 1 %, {'footer not known' if footers else 'footer known'}",
        _text(of_data) + f" of data, {len(of_table) - len(of_data)} of metadata",
        f"{footers} footers, {row_groups} row groups returned",
        f"{len(of_data) / max(wanted, 1):.2f}",
        "≤ 1",
        len(of_data) <= wanted,
    )


def _row_groups(path: Path, window: tuple[int, int]) -> int:
    """How many row groups of a file hold rows of a window."""
    footer = pq.read_metadata(path)
    leaf = [footer.schema.column(number).path for number in range(footer.num_columns)].index(TIMESTAMP_COLUMN)
    bounds = [footer.row_group(number).column(leaf).statistics for number in range(footer.num_row_groups)]
    return sum(each.max >= window[0] and each.min < window[1] for each in bounds)


def _text(requests: Sequence[Request]) -> str:
    found = Counter(request.operation for request in requests)
    if not requests:
        return "0"
    return f"{len(requests)} (" + ", ".join(f"{number} {name}" for name, number in found.most_common()) + ")"
