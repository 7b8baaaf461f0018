"""The operators' command `payment-worker`."""

from payment_worker.cli import (
    asyncapi,
    audit,
    dead_letters,
    events,
    evidence,
    invariants,
    notifications,
    operators,
    processes,
    reconcile,
    reseal,
    review,
    webhooks,
)
from payment_worker.cli.command import main

__all__ = [
    "asyncapi",
    "audit",
    "dead_letters",
    "events",
    "evidence",
    "invariants",
    "main",
    "notifications",
    "operators",
    "processes",
    "reconcile",
    "reseal",
    "review",
    "webhooks",
]
