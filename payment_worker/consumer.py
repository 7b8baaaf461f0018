"""Turn requests for operations into Celery tasks; the offset moves on only when the task is queued."""

import functools
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace

from confluent_kafka import Consumer, Message
from kombu.exceptions import OperationalError

from payment_worker.consuming import TopicConsumer, headers_of
from payment_worker.queues import Errand, queue_of
from shared import events
from shared.events import Event
from shared.kafka import Deliveries
from shared.payments import REQUESTED_BY
from shared.telemetry import get_logger
from shared.trace_ids import usable_correlation_id, usable_traceparent
from shared.tracing import span

log = get_logger(__name__)

Dispatch = Callable[[list[Errand], str], None]
_QUEUES = {announcement: queue_of(kind) for kind, announcement in REQUESTED_BY.items()}


class RequestConsumer(TopicConsumer):
    """Reads requests and queues their operations; what cannot be read goes to the dead letters."""

    def __init__(
        self, consumer: Consumer, dispatch: Dispatch, deliveries: Deliveries, topic_prefix: str
    ) -> None:
        """`dispatch` puts operations, at most OPERATIONS_PER_TASK, in a queue; raises OperationalError."""
        self._dispatch = dispatch
        super().__init__(consumer, deliveries, sorted(set(REQUESTED_BY.values())), topic_prefix)

    def handle(self, messages: list[Message], stop: threading.Event) -> bool:
        """Bury what cannot be read and queue the others as one task; False when stopped before."""
        requests: list[Event] = []
        for message in messages:
            try:
                requests.append(_request(message))
                self.was_readable()
            except events.InvalidEvent as error:
                if not self.bury(message, error, stop):
                    return False
        by_queue: dict[str, list[Event]] = {}
        for each in requests:
            by_queue.setdefault(_QUEUES[each.type], []).append(each)
        return all(
            self.insist(functools.partial(self._queue, queue, few), stop) for queue, few in by_queue.items()
        )

    def _queue(self, queue: str, requests: list[Event]) -> bool:
        try:
            self._dispatch([(str(each.causation_id), 0, each.correlation_id) for each in requests], queue)
        except OperationalError as error:
            log.warning("task not queued; trying again", error=type(error.__cause__ or error).__name__)
            return False
        for each in requests:
            ids = {"payment_id": str(each.subject), "operation_id": str(each.causation_id)}
            with span("queue", each.traceparent, **ids):
                log.info("task queued", **ids, correlation_id=each.correlation_id)
        return True


def _request(message: Message) -> Event:
    """The request that the message is. Raises InvalidEvent for anything else."""
    event = events.decode(headers_of(message), message.value())
    if event.type not in _QUEUES or not event.causation_id:
        raise events.InvalidEvent("not a request that names its operation")
    try:
        operation_id = str(uuid.UUID(event.causation_id))
    except ValueError:
        raise events.UnreadableMessage("the operation's id is no uuid") from None
    return replace(
        event,
        causation_id=operation_id,
        # Whoever else may produce to the topic: logs and tasks repeat only what may stand there.
        correlation_id=usable_correlation_id(event.correlation_id),
        traceparent=usable_traceparent(event.traceparent),
    )
