"""DoGet: how fast rows come back, whole topics and windows, against serving from memory and a decoder on its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

import pyarrow.parquet as pq

from bench.client import Client, Transfer
from bench.comparison import first_batch, first_batch_ms, processor_time, throughput
from bench.doput import KINDS
from bench.encoder import decode_files, decode_row_group
from bench.gateway_process import GatewayProcess
from bench.measuring import Spread, take_turns
from bench.report import Line, Section
from bench.rows import MIB
from bench.runs import Run
from bench.stand_in import KEPT
from bench.transfers import copy_topic, create_topic, download, together, upload
from bench.workers import Workers
from lakehouse.ontology.storage_names import TIMESTAMP_COLUMN

ROW_GROUPS_GOAL = 3
WINDOW_SHARE = 0.01
SIZES = {"IMU rows": 2000 * MIB, "1 MiB images": 1000 * MIB}
READERS = ("ours", "memory", "decoding")


def measure(run: Run) -> Section:
    section = Section(
        "DoGet",
        "One client reads a finalized topic: all of it, or 1 % of its time at changing places. Compared with the "
        "slower of *memory*, the same gRPC service sending the same batches from memory, and *decoding*, the Parquet "
        "decoder alone on the same files (for a window: on the row groups that it touches). Files are in the page "
        "cache. Time to the first batch counts from the DoGet call. Processor time compares the server with the sum "
        "of the two parts.",
    )
    with (
        GatewayProcess(run.directory / "lake") as lake,
        GatewayProcess(run.directory / "memory", "bench.stand_in") as memory,
    ):
        for kind, make_rows in KINDS.items():
            with Workers(1, make_rows) as workers:
                uploaded = run.step(f"DoGet, {kind}, upload", 1)
                topic = _store_topic(lake, memory, workers, f"get-{len(section.lines)}", run.size(SIZES[kind]))
                uploaded()
                readers = _Readers(workers, lake, memory, topic)
                section.lines += _lines(run, f"{kind}, {topic.size / 1e9:.1f} GB", readers)
    return section


@dataclass(frozen=True, slots=True)
class _StoredTopic:
    """One topic of the lake, with the same batches in the stand-in's memory.

    Attributes:
        kept: Locator in the stand-in.
        row_groups: Path, number, first and last timestamp of each row group, in time order.
        size: Bytes of Arrow data, as a client counts them.
        batch_rows: Rows of the batches that the gateway sends.
    """

    locator: str
    kept: str
    row_groups: tuple[tuple[str, int, int, int], ...]
    size: int
    batch_rows: int

    def window(self, number: int) -> tuple[int, int]:
        """One of a sequence of windows, which the golden ratio spreads over the topic."""
        start_ns, end_ns = self.row_groups[0][2], self.row_groups[-1][3]
        place = (0.37 + 0.618 * number) % (1 - WINDOW_SHARE)
        length = end_ns - start_ns
        return int(start_ns + length * place), int(start_ns + length * (place + WINDOW_SHARE))

    def touched(self, window: tuple[int, int] | None) -> list[tuple[str, list[int]]]:
        """Files and their row groups that hold rows of the window."""
        found: dict[str, list[int]] = {}
        for path, number, first_ns, last_ns in self.row_groups:
            if window is None or (first_ns < window[1] and last_ns >= window[0]):
                found.setdefault(path, []).append(number)
        return list(found.items())


class _Readers:
    """The three ways to read a topic."""

    def __init__(self, workers: Workers, lake: GatewayProcess, memory: GatewayProcess, topic: _StoredTopic) -> None:
        self._workers = workers
        self._servers = {"ours": (lake, topic.locator), "memory": (memory, topic.kept)}
        self._topic = topic
        self._windows = {reader: count() for reader in READERS}

    def all_of_it(self, reader: str) -> Transfer:
        return self._read(reader, None)

    def next_window(self, reader: str) -> Transfer:
        """The window that follows the reader's last one."""
        return self._read(reader, self._topic.window(next(self._windows[reader])))

    def one_row_group(self) -> Transfer:
        path, number, _, _ = self._topic.row_groups[len(self._topic.row_groups) // 2]
        return self._workers.run(decode_row_group, (path, number))[0]

    def _read(self, reader: str, window: tuple[int, int] | None) -> Transfer:
        if reader == "decoding":
            size = int(self._topic.size * (1 if window is None else WINDOW_SHARE))
            start_ns = 0 if window is None else window[0]
            touched = self._topic.touched(window)
            return self._workers.run(decode_files, (touched, self._topic.batch_rows, size, start_ns))[0]
        server, locator = self._servers[reader]
        before = server.processor_seconds()
        done = self._workers.run(download, (server.port, locator, *(window or ())))
        return together(done, server.processor_seconds() - before)


def _lines(run: Run, name: str, readers: _Readers) -> list[Line]:
    rounds, window_rounds = run.rounds(5), run.rounds(15)
    everything = take_turns(
        {reader: partial(readers.all_of_it, reader) for reader in READERS},
        rounds,
        run.step(f"DoGet, {name}", rounds + 1, len(READERS)),
    )
    windows = take_turns(
        {reader: partial(readers.next_window, reader) for reader in READERS},
        window_rounds,
        run.step(f"DoGet, {name}, 1 %", window_rounds + 1, len(READERS)),
    )
    row_group = take_turns(
        {"decoding": readers.one_row_group}, window_rounds, run.step(f"DoGet, {name}, row group", window_rounds + 1)
    )["decoding"]
    return [
        throughput(f"{name}, all", everything, READERS[1:]),
        processor_time(f"{name}, all, processor time of the server", everything, READERS[1:]),
        throughput(f"{name}, 1 %", windows, READERS[1:]),
        first_batch(f"{name}, 1 %, first batch", windows, READERS[1:]),
        _in_row_groups(f"{name}, 1 %, first batch in row groups", windows["ours"], row_group),
    ]


def _in_row_groups(what: str, windows: Sequence[Transfer], row_groups: Sequence[Transfer]) -> Line:
    ours, row_group = first_batch_ms(windows), Spread.of(1e3 * done.seconds for done in row_groups)
    times = ours.median / row_group.median
    reference = f"decoding one whole row group {row_group.text(1)} ms"
    return Line(what, ours.text(1, "ms"), reference, f"{times:.2f}", f"< {ROW_GROUPS_GOAL}", times < ROW_GROUPS_GOAL)


def _store_topic(
    lake: GatewayProcess, memory: GatewayProcess, workers: Workers, sequence: str, size: int
) -> _StoredTopic:
    with Client(lake.port) as client:
        session = client.open_session(sequence)
        topic = workers.run(create_topic, (lake.port, session, f"{sequence}/sensor"))[0]
        workers.run(upload, (lake.port, topic, size))
        client.action("session_finalize", session_uuid=session)
    kept = f"{sequence}/{KEPT}sensor"
    done, batch_rows = workers.run(copy_topic, (lake.port, topic.locator, memory.port, kept))[0]
    files = sorted(map(str, (lake.home / "warehouse").rglob(f"{topic.uuid}-*.parquet")))
    row_groups = tuple((path, *group) for path in files for group in _row_groups(path))
    return _StoredTopic(topic.locator, kept, row_groups, done.size, batch_rows)


def _row_groups(path: str) -> list[tuple[int, int, int]]:
    """Number, first and last timestamp of each row group."""
    footer = pq.read_metadata(path)
    leaves = [footer.schema.column(index).path for index in range(footer.num_columns)]
    column = leaves.index(TIMESTAMP_COLUMN)
    found = []
    for number in range(footer.num_row_groups):
        statistics = footer.row_group(number).column(column).statistics
        found.append((number, statistics.min, statistics.max))
    return found
