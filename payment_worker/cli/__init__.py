"""The operators' command `payment-worker`."""

from payment_worker.cli import operators, processes, review
from payment_worker.cli.command import main

__all__ = ["main", "operators", "processes", "review"]
