"""DoPut: how fast rows become durable Parquet files, against a server that drops them and an encoder on its own."""

import os
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

from bench.client import Client, TopicHandle
from bench.encoder import encode_topics
from bench.gateway_process import GatewayProcess
from bench.measuring import Spread, interleave, ratio
from bench.report import Line, Section
from bench.rows import MIB, RowSource
from bench.runs import Run
from bench.transfers import ANY_UUID, create_topic, megabytes_per_second, upload
from bench.workers import Workers

GOAL = 0.8
# Clients, and how much each of them sends.
SIZES = {1: 1024 * MIB, 4: 512 * MIB}
_ON_EVERY_CORE = "encoding on every core"
KINDS: dict[str, Callable[[int], RowSource]] = {"IMU rows": RowSource.imu, "1 MiB images": RowSource.images}


def measure(run: Run) -> Section:
    section = Section(
        "DoPut to durable Parquet",
        "Throughput from the first row to the OK that promises durability. Compared with the slower of *dropping*, the "
        "same gRPC service over the same messages with the rows thrown away, and *encoding*, the Parquet encoder alone "
        "in one process and thread, on rows in memory, with the same encodings, files and fsync. The lines without "
        "goal compare with encoders on every core, which leave none for receiving.",
    )
    with (
        GatewayProcess(run.directory / "lake") as lake,
        GatewayProcess(run.directory / "drop", "bench.stand_in") as drop,
    ):
        for kind, make_rows in KINDS.items():
            with Workers(max(SIZES), make_rows) as workers:
                for clients in SIZES:
                    bench = _Bench(workers, clients, run.size(SIZES[clients]), run.directory)
                    measurements = {
                        "ours": partial(bench.upload, lake.port),
                        "dropping": partial(bench.drop, drop.port),
                        "encoding": partial(bench.encode, 1),
                    }
                    threads = min(clients, os.cpu_count() or 1)
                    if threads > 1:
                        measurements[_ON_EVERY_CORE] = partial(bench.encode, threads)
                    name = f"{kind}, {clients} client{'s' if clients > 1 else ''}"
                    rounds = run.rounds(5)
                    step = run.step(f"DoPut, {name}", rounds + 1, len(measurements))
                    section.lines += _lines(name, interleave(measurements, rounds, step))
    return section


class _Bench:
    """One kind of rows and number of clients, in megabytes per second each way."""

    def __init__(self, workers: Workers, clients: int, size: int, directory: Path) -> None:
        self._workers = workers
        self._clients = clients
        self._size = size
        self._encoded = directory / "encoded"
        self._numbers = count()

    def upload(self, port: int) -> float:
        sequence = f"put-{self._clients}-{next(self._numbers)}"
        with Client(port) as client:
            session = client.open_session(sequence)
            topics = [
                self._workers.run(create_topic, (port, session, f"{sequence}/sensor/{number}"))[0]
                for number in range(self._clients)
            ]
            done = self._workers.run(upload, *((port, topic, self._size) for topic in topics))
            client.action("sequence_delete", locator=sequence)
        return megabytes_per_second(done)

    def drop(self, port: int) -> float:
        topics = [TopicHandle(f"drop/sensor/{number}", ANY_UUID) for number in range(self._clients)]
        return megabytes_per_second(self._workers.run(upload, *((port, topic, self._size) for topic in topics)))

    def encode(self, threads: int) -> float:
        arguments = (self._size, self._clients, threads, str(self._encoded))
        return megabytes_per_second(self._workers.run(encode_topics, arguments))


def _lines(name: str, found: dict[str, Spread]) -> list[Line]:
    ours, dropping, encoding = found["ours"], found["dropping"], found["encoding"]
    reached = ratio(ours, dropping, encoding)
    lines = [
        Line(
            name,
            ours.text(unit="MB/s"),
            f"dropping {dropping.text()}, encoding {encoding.text()} MB/s",
            reached.text(2),
            f"≥ {GOAL}",
            reached.median >= GOAL,
        )
    ]
    if _ON_EVERY_CORE in found:
        every_core = found[_ON_EVERY_CORE]
        reference = f"dropping {dropping.text()}, {_ON_EVERY_CORE} {every_core.text()} MB/s"
        lines.append(Line(name, ours.text(unit="MB/s"), reference, ratio(ours, dropping, every_core).text(2)))
    return lines
