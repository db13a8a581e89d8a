"""What a server counts, in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # bounds of the buckets


class Metrics:
    """Counts of one server. The process' memory and time are among them, where the system has /proc."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        add = {"registry": self.registry}
        self.requests = Counter("splade_requests", "Requests by path and status.", ["path", "status"], **add)
        names = "variant", "part"
        self.seconds = Histogram("splade_query_seconds", "Seconds of a query.", names, buckets=SECONDS, **add)
        sizes = (1, 2, 4, 8, 16, 32)
        self.together = Histogram("splade_queries_together", "Queries encoded together.", buckets=sizes, **add)
        self.documents = Gauge("splade_documents", "Documents by variant.", ["variant"], **add)
        self.judgments = Counter("splade_judgments", "Judgments of hits.", ["variant", "liked"], **add)
