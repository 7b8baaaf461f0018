"""The operators' command `payment-worker`."""

from payment_worker.cli import events, operators, processes, review, webhooks
from payment_worker.cli.command import main

__all__ = ["events", "main", "operators", "processes", "review", "webhooks"]
