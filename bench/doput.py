"""DoPut: how fast rows become durable Parquet files, against a server that drops them and an encoder on its own."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from bench.client import Client, TopicHandle, Transfer
from bench.comparison import processor_time, throughput
from bench.encoder import encode_topics
from bench.gateway_process import GatewayProcess
from bench.measuring import take_turns
from bench.report import Section
from bench.rows import MIB, RowSource
from bench.runs import Run
from bench.transfers import ANY_UUID, create_topic, together, upload
from bench.workers import Workers

# Clients, and how much each of them sends.
SIZES = {1: 1024 * MIB, 4: 512 * MIB}
_ON_EVERY_CORE = "encoding on every core"
KINDS: dict[str, Callable[[int], RowSource]] = {"IMU rows": RowSource.imu, "1 MiB images": RowSource.images}


def measure(run: Run) -> Section:
    section = Section(
        "DoPut to durable Parquet",
        "Throughput from the first row to the OK that promises durability. Compared with the slower of *dropping*, the "
        "same gRPC service over the same messages with the rows thrown away, and *encoding*, the Parquet encoder alone "
        "in one process and thread, on rows in memory, with the same encodings, files and fsync. Encoding on every "
        "core leaves none for receiving and is shown without goal. Processor time compares the server with the sum of "
        "the two parts.",
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
                        "ours": partial(bench.upload, lake),
                        "dropping": partial(bench.drop, drop),
                        "encoding": partial(bench.encode, 1),
                    }
                    threads = min(clients, os.cpu_count() or 1)
                    if threads > 1:
                        measurements[_ON_EVERY_CORE] = partial(bench.encode, threads)
                    name = f"{kind}, {clients} client{'s' if clients > 1 else ''}"
                    rounds = run.rounds(5)
                    step = run.step(f"DoPut, {name}", rounds + 1, len(measurements))
                    found = take_turns(measurements, rounds, step)
                    section.lines.append(throughput(name, found, ("dropping", "encoding")))
                    if threads > 1:
                        section.lines.append(throughput(name, found, ("dropping", _ON_EVERY_CORE), has_goal=False))
                    section.lines.append(
                        processor_time(f"{name}, processor time of the server", found, ("dropping", "encoding"))
                    )
    return section


class _Bench:
    """One kind of rows and number of clients."""

    def __init__(self, workers: Workers, clients: int, size: int, directory: Path) -> None:
        self._workers = workers
        self._clients = clients
        self._size = size
        self._encoded = directory / "encoded"
        self._numbers = count()

    def upload(self, lake: GatewayProcess) -> Transfer:
        sequence = f"put-{self._clients}-{next(self._numbers)}"
        with Client(lake.port) as client:
            session = client.open_session(sequence)
            topics = [
                self._workers.run(create_topic, (lake.port, session, f"{sequence}/sensor/{number}"))[0]
                for number in range(self._clients)
            ]
            done = self._send(lake, topics)
            client.action("sequence_delete", locator=sequence)
        return done

    def drop(self, stand_in: GatewayProcess) -> Transfer:
        return self._send(stand_in, [TopicHandle(f"drop/sensor/{number}", ANY_UUID) for number in range(self._clients)])

    def encode(self, threads: int) -> Transfer:
        return self._workers.run(encode_topics, (self._size, self._clients, threads, str(self._encoded)))[0]

    def _send(self, server: GatewayProcess, topics: Sequence[TopicHandle]) -> Transfer:
        before = server.processor_seconds()
        done = self._workers.run(upload, *((server.port, topic, self._size) for topic in topics))
        return together(done, server.processor_seconds() - before)
