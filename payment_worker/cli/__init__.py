"""The operators' command `payment-worker`."""

from payment_worker.cli import dead_letters, events, operators, processes, review, webhooks
from payment_worker.cli.command import main

__all__ = ["dead_letters", "events", "main", "operators", "processes", "review", "webhooks"]
