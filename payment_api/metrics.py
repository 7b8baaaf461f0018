"""What the API counts and measures; gunicorn's processes write it together and answer for each other."""

from prometheus_client import Counter, Gauge, Histogram

from shared.metrics import LATENCY_BUCKETS_S

REQUESTS = Counter("payment_api_requests", "HTTP requests", ["route", "method", "status"])
REQUEST_SECONDS = Histogram(
    "payment_api_request_seconds", "Time to answer", ["route", "method"], buckets=LATENCY_BUCKETS_S
)
WAIT_SLOTS = Gauge(
    "payment_api_wait_slots_in_use", "Requests that wait for an outcome", multiprocess_mode="livesum"
)
KEY_FETCHES = Counter("payment_api_key_fetches", "Fetches of an outside issuer's keys", ["outcome"])
LIMITED = Counter("payment_api_rate_limited", "Requests refused for their number", ["limit"])
