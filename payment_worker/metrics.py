"""What the worker's processes count and measure."""

import math

from prometheus_client import Counter, Gauge, Histogram

from shared.metrics import LATENCY_BUCKETS_S

# The tasks.
ATTEMPTS = Counter("payment_attempts", "Claims of operations", ["kind"])
TAKEOVERS = Counter("payment_lease_takeovers", "Claims of operations whose holder had gone silent", ["kind"])
OUTCOMES = Counter("payment_gateway_outcomes", "What gateway calls led to", ["kind", "outcome"])
GATEWAY_SECONDS = Histogram(
    "payment_gateway_seconds", "Time of a gateway call", ["kind"], buckets=LATENCY_BUCKETS_S
)
OPERATIONS_FINISHED = Counter("payment_operations_finished", "Operations with an outcome", ["kind", "state"])
UNKNOWN_OPERATIONS = Counter("payment_unknown_operations", "Messages that name an operation we do not have")
REDISPATCHED = Counter("payment_redispatched", "Operations that recovery dispatched again")
WEBHOOKS = Counter("payment_webhooks", "Webhooks that were worked off", ["type", "state"])

EVIDENCE = Counter("payment_evidence", "Attempts whose exchanges were kept, or were not", ["result"])

# The gate before the gateway, of this process.
BUDGET_LEFT = Gauge("payment_gateway_budget_left", "Tokens of the request budget, as last seen")
BUDGET_LEFT.set(math.inf)  # no limit, until a budget says otherwise
BUDGET_WAITS = Counter("payment_gateway_budget_waits", "Calls that waited for a token", ["priority"])
BUDGET_REFUSALS = Counter("payment_gateway_budget_refusals", "Calls that got no token in time", ["priority"])
BREAKER_STATE = Gauge("payment_gateway_breaker_state", "0 closed, 1 half-open, 2 open: nothing is sent")
BREAKER_REFUSALS = Counter("payment_gateway_breaker_refusals", "Calls that the breaker did not let through")

# The relay and the consumer.
LEADS = Gauge("payment_relay_leads", "1 while this relay carries, 0 while it stands by")
DELIVERED = Counter("payment_events_delivered", "Events that Kafka has confirmed")
PARKED = Counter("payment_events_parked", "Events that cannot be announced as they are")
CONSUMED = Counter("payment_messages_consumed", "Messages that were handled", ["topic"])
DEAD_LETTERS = Counter("payment_dead_letters", "Messages that could not be read", ["topic"])
COMMANDS = Counter("payment_commands", "Commands on Kafka that were taken or refused", ["command", "result"])
CONSUMER_LAG = Gauge(
    "payment_consumer_lag", "Messages that wait in a partition of ours", ["topic", "partition"]
)

# Webhooks to subscribers, and order callbacks.
NOTIFICATIONS = Counter(
    "payment_notifications", "Attempts to deliver an event to a subscriber or the order service", ["result"]
)
NOTIFICATION_SECONDS = Histogram(
    "payment_notification_seconds", "Time of such an attempt", buckets=LATENCY_BUCKETS_S
)
ENDPOINTS_DISABLED = Counter("payment_notification_endpoints_disabled", "Endpoints that failed for days")
