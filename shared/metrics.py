"""What processes of both services count and measure for Prometheus."""

from prometheus_client import Counter, Gauge

# From a round trip on loopback to the longest wait that a client is given.
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

PRODUCER_REBUILDS = Counter("payment_producer_rebuilds", "Kafka producers that were given up and made anew")
POOL_IN_USE = Gauge(
    # The mode concerns the API alone, whose processes answer for each other.
    "payment_database_connections_in_use",
    "Pooled connections in use",
    multiprocess_mode="livesum",
)
