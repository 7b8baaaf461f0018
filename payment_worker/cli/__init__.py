"""The operators' command `payment-worker`."""

from payment_worker.cli import operators, processes
from payment_worker.cli.command import main

__all__ = ["main", "operators", "processes"]
