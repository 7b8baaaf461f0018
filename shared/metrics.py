"""What the processes count and measure for Prometheus; each process exports what it has touched."""

from prometheus_client import Counter, Gauge, Histogram

# From a round trip on loopback to the longest wait that a client is given.
_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# The API. Under gunicorn several processes write these, and any of them answers for all.
REQUESTS = Counter("payment_api_requests", "HTTP requests", ["route", "method", "status"])
REQUEST_SECONDS = Histogram(
    "payment_api_request_seconds", "Time to answer", ["route", "method"], buckets=_LATENCY_BUCKETS_S
)
WAIT_SLOTS = Gauge(
    "payment_api_wait_slots_in_use", "Requests that wait for an outcome", multiprocess_mode="livesum"
)
POOL_IN_USE = Gauge(
    "payment_database_connections_in_use", "Pooled connections in use", multiprocess_mode="livesum"
)

# The tasks.
ATTEMPTS = Counter("payment_attempts", "Claims of operations", ["kind"])
TAKEOVERS = Counter("payment_lease_takeovers", "Claims of operations whose holder had gone silent", ["kind"])
OUTCOMES = Counter("payment_gateway_outcomes", "What gateway calls led to", ["kind", "outcome"])
GATEWAY_SECONDS = Histogram(
    "payment_gateway_seconds", "Time of a gateway call", ["kind"], buckets=_LATENCY_BUCKETS_S
)
OPERATIONS_FINISHED = Counter("payment_operations_finished", "Operations with an outcome", ["kind", "state"])
UNKNOWN_OPERATIONS = Counter("payment_unknown_operations", "Messages that name an operation we do not have")
REDISPATCHED = Counter("payment_redispatched", "Operations that recovery dispatched again")

# The relay and the consumer.
LEADS = Gauge("payment_relay_leads", "1 while this relay carries, 0 while it stands by")
DELIVERED = Counter("payment_events_delivered", "Events that Kafka has confirmed")
PARKED = Counter("payment_events_parked", "Events that break their own schema")
PRODUCER_REBUILDS = Counter("payment_producer_rebuilds", "Kafka producers that were given up and made anew")
CONSUMED = Counter("payment_messages_consumed", "Messages that were handled", ["topic"])
DEAD_LETTERS = Counter("payment_dead_letters", "Messages that could not be read", ["topic"])
CONSUMER_LAG = Gauge(
    "payment_consumer_lag", "Messages that wait in a partition of ours", ["topic", "partition"]
)
