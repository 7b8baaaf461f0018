"""The command `payment-worker`: what its processes do by default."""

from payment_worker.cli.processes import run_tasks
from payment_worker.queues import QUEUES


def test_a_task_worker_takes_from_every_queue() -> None:
    """Unless told otherwise, no queue is left to nobody."""
    (option,) = [each for each in run_tasks.params if each.name == "queues"]
    assert str(option.default).split(",") == list(QUEUES)
