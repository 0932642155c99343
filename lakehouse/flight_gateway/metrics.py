"""What a gateway tells Prometheus: calls, bytes, uploads, commits, queries, maintenance, connections.

Calls are counted as they happen; everything else is asked for when somebody looks.
"""

from collections.abc import Iterable, Iterator

import grpc
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lakehouse import __version__
from lakehouse.catalog.activity import Activity
from lakehouse.catalog.lakehouse import Lakehouse

# From answers out of memory to uploads of hours.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_MEANINGS = {
    "commits": "Commits carried out, each over any number of tables",
    "commit_conflicts": "Commits staged again because another process was faster",
    "commit_turns_waited_for": "Turns to commit that other processes were waited for",
    "commit_turns_missed": "Turns to commit that did not come in time, so that commits went on without",
    "query_files_considered": "Data files whose bounds were compared with the conditions of queries",
    "query_files_opened": "Data files that queries looked into",
    "cleanup_cycles": "Whole cleanup cycles run by this process",
    "expired_snapshots": "Snapshots expired by this process",
    "purged_files": "Files removed by cleanup in this process",
    "maintenance_failures": "Steps of maintenance that failed and will be tried again",
}

# Every counter would come with a second series that says when it began.
disable_created_metrics()


class GatewayMetrics:
    """The metrics of one gateway."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "lakehouse_requests", "Calls that ended", ["rpc", "action", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "lakehouse_request_seconds",
            "Duration of calls",
            ["rpc", "action"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._running = Gauge("lakehouse_requests_in_progress", "Calls going on", ["rpc"], registry=self._registry)
        self._received = Counter(
            "lakehouse_received_bytes", "Bytes of messages received", ["rpc"], registry=self._registry
        )
        self._sent = Counter("lakehouse_sent_bytes", "Bytes of messages sent", ["rpc"], registry=self._registry)
        ProcessCollector(registry=self._registry)
        self._registry.register(_LakehouseCollector(lakehouse))

    def began(self, rpc: str) -> None:
        self._running.labels(rpc).inc()

    def ended(self, rpc: str, action: str, status: grpc.StatusCode, seconds: float) -> None:
        """Count a call.

        Args:
            action: One of the protocol's, or empty: what clients invent must not become labels.
        """
        self._running.labels(rpc).dec()
        self._calls.labels(rpc, action, status.name).inc()
        self._seconds.labels(rpc, action).observe(seconds)

    def received(self, rpc: str, size: int) -> None:
        self._received.labels(rpc).inc(size)

    def sent(self, rpc: str, size: int) -> None:
        self._sent.labels(rpc).inc(size)

    def render(self) -> bytes:
        """Everything in the text format of Prometheus."""
        return generate_latest(self._registry)


class _LakehouseCollector(Collector):
    """What the lake knows by itself."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._lakehouse = lakehouse

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        lake = self._lakehouse
        yield _gauge("lakehouse_info", "The version that runs", 1, version=__version__)
        budget = lake.upload_budget
        yield _gauge("lakehouse_open_uploads", "Uploads going on", budget.open_uploads)
        yield _gauge("lakehouse_upload_buffer_bytes", "Arrow bytes that uploads hold in memory", budget.total)
        yield _gauge("lakehouse_upload_buffer_limit_bytes", "Their limit", budget.limit)
        in_use, limit = lake.database.connections()
        yield _gauge("lakehouse_database_connections_in_use", "Database connections at work", in_use)
        yield _gauge("lakehouse_database_connections_limit", "Most database connections of this process", limit)
        yield from _counters(lake.activity)


def _gauge(name: str, meaning: str, value: float, **labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _counters(activity: Activity) -> Iterator[CounterMetricFamily]:
    for name, value in activity.counts().items():
        yield CounterMetricFamily(f"lakehouse_{name}", _MEANINGS[name], value=value)
