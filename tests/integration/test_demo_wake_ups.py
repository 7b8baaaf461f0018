"""What the demo says that Valkey has lost is what was in it."""

import uuid

from deploy.local.demo.wake_ups import operations_in
from payment_worker.queues import OPERATIONS_PER_TASK, PAYMENTS_QUEUE, dispatch, make_celery
from shared.settings import Settings
from shared.wakeup import connect_redis


def test_waiting_operations_are_counted_one_by_one(redis_url: str) -> None:
    """A message may carry several operations, and the same one may come in two: each counts once."""
    operations = [str(uuid.uuid4()) for _ in range(OPERATIONS_PER_TASK + 2)]
    queue = connect_redis(redis_url)
    assert operations_in(queue.lrange(PAYMENTS_QUEUE, 0, -1)) == set()
    with make_celery(Settings(redis_url=redis_url)) as app:
        dispatch(app, [(each, 0, None) for each in operations])
        dispatch(app, [(operations[0], 1, "again")])
    messages = queue.lrange(PAYMENTS_QUEUE, 0, -1)
    assert len(messages) == 3
    assert operations_in(messages) == set(operations)
