"""What `/metrics` tells: requests, batches, the queue, what the service counted, and the process
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_QUERIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The numbers of one server. Labels come from fixed sets, so that no request can make them
    grow.
    """

    def __init__(self) -> None:
        """Start at zero, in a registry of its own."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "search_requests", "Replies sent", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "search_request_seconds",
            "From request to reply",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_queries = Histogram(
            "search_batch_queries",
            "Queries ranked together",
            buckets=_QUERIES,
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "search_batch_seconds",
            "Embedding and ranking a batch",
            buckets=_SECONDS,
            registry=self.registry,
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a reply."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, num_queries: int, seconds: float) -> None:
        """Count a batch."""
        self._batch_queries.observe(num_queries)
        self._batch_seconds.observe(seconds)

    def watch(
        self,
        counters: Sequence[Callable[[], Mapping[str, int]]],
        gauges: Callable[[], Mapping[str, float]],
    ) -> None:
        """Show at each request for the metrics what others count: events that only grow, and
        levels.
        """
        self.registry.register(_Watched(counters, gauges))

    def text(self) -> bytes:
        """Write everything as Prometheus reads it."""
        return generate_latest(self.registry)


class _Watched(Collector):
    def __init__(
        self,
        counters: Sequence[Callable[[], Mapping[str, int]]],
        gauges: Callable[[], Mapping[str, float]],
    ) -> None:
        self._counters, self._gauges = counters, gauges

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Read the numbers of this moment."""
        events = CounterMetricFamily("search_events", "What became of searches", labels=["event"])
        for event, count in sorted(pair for counts in self._counters for pair in counts().items()):
            events.add_metric([event], count)
        yield events
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"search_{name}", name.replace("_", " "), value=value)
