"""Carry out what other services ask for on Kafka: by the same commands as HTTP, each message once."""

import functools
import threading
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from confluent_kafka import Consumer, Message
from sqlalchemy import select

from payment_worker import catalog, ticketing
from payment_worker.consuming import TopicConsumer, headers_of
from payment_worker.handling import Handling, canonical
from payment_worker.metrics import COMMANDS
from shared.command_messages import Asked, read_command, rejection
from shared.commands.cancel import cancel_payment
from shared.commands.capture import CapturePayment, capture_payment
from shared.commands.create import CreatePayment, create_payment
from shared.commands.limits import AmountLimits
from shared.commands.operations import Origin
from shared.commands.received import AlreadyReceived, ReceivedMessage, refusal_of, refuse
from shared.commands.refund import RefundPayment, refund_payment
from shared.database import Sessions, is_database_down, new_id, reading, reason_of
from shared.events import InvalidEvent
from shared.gateways.exchanges import redacted
from shared.kafka import Deliveries
from shared.models import Payment
from shared.money import Money, MoneyError
from shared.orders import Orders, OrderServiceUnavailable
from shared.payments import (
    DEAD,
    CaptureMethod,
    Command,
    InvalidCommand,
    Notice,
    PaymentError,
    PaymentNotFound,
)
from shared.settings import Settings
from shared.telemetry import get_logger, log_context
from shared.tracing import span

log = get_logger(__name__)

ACTOR = "kafka"  # in the history; which service produced to our topics is for the broker's rights to say
CARD_DATA_REFUSED = "CARD_DATA_REFUSED"
HANDLERS = {**catalog.HANDLERS, **ticketing.HANDLERS}
# Only the first kind of message needs the order service: an outage of it is not to hold up the others.
ASKING_FOR_ORDERS = (Notice.PAYMENT_INITIATED,)
OTHERS = (*Command, *(each for each in Notice if each not in ASKING_FOR_ORDERS))


class CardDataRefused(PaymentError):
    """A field holds a card number or a card's security code."""

    code = CARD_DATA_REFUSED


class CommandFailed(Exception):
    """Something broke here; the log says what."""


class Desk:
    """Carries out one command at a time, and says why it refuses one."""

    def __init__(self, sessions: Sessions, settings: Settings, orders: Orders | None = None) -> None:
        """Write to this database, with these limits; `orders` is asked about orders to be charged."""
        self._sessions = sessions
        self._settings = settings
        self._orders = orders
        self._simulated = settings.simulated
        self._limits = AmountLimits(settings.amount_minimums, settings.amount_maximums)
        self._recovery_after_s = settings.recovery_after_s

    def carry_out(self, asked: Asked) -> str | None:
        """Do what is asked, unless the message came before; the refusal, code and message, or None.

        A refusal is stored: a repeat gets the same answer, whatever could be done by then. Raises
        OrderServiceUnavailable, of which nothing is stored.
        """
        received = ReceivedMessage(
            source=str(asked.command),
            message_id=asked.id,
            # For operators alone, who need no token that pays to see what was asked for.
            payload=redacted(asked.data),
            correlation_id=asked.correlation_id or str(new_id()),
        )
        try:
            self._do(asked, received)
        except AlreadyReceived:
            log.info("a command came again", command=str(asked.command), command_id=asked.id)
        except (PaymentError, MoneyError) as error:
            # Of a repeat it may be no refusal: what was carried out before stays carried out.
            refuse(self._sessions, received, f"{_code(error)}: {error}")
        else:
            return None
        return refusal_of(self._sessions, received)

    def _do(self, asked: Asked, received: ReceivedMessage) -> None:
        if asked.card_data_in:
            raise CardDataRefused(f"{asked.card_data_in}: card numbers and security codes are not accepted")
        origin = Origin(
            actor=ACTOR,
            correlation_id=received.correlation_id,
            traceparent=asked.traceparent,
        )
        if isinstance(asked.command, Notice):
            handling = Handling(
                sessions=self._sessions,
                settings=self._settings,
                limits=self._limits,
                orders=self._orders,
                asked=asked,
                origin=origin,
                received=received,
            )
            HANDLERS[asked.command](handling)
        elif asked.command is Command.AUTHORIZE_PAYMENT:
            self._authorize(asked.data, origin, received)
        else:
            self._ask_of_payment(asked, origin, received)

    def _authorize(self, data: dict[str, Any], origin: Origin, received: ReceivedMessage) -> None:
        money = Money(data["amount"], data["currency"])
        self._limits.check(money)
        command = CreatePayment(
            money=money,
            cart_id=canonical(data["cartId"]),
            order_id=canonical(data["orderId"]),
            customer_id=canonical(data["customerId"]),
            payment_method_id=data["paymentMethodId"],
            capture_method=CaptureMethod.MANUAL,
        )
        create_payment(
            self._sessions,
            command,
            origin,
            simulated=self._simulated,
            recovery_after_s=self._recovery_after_s,
            received=received,
        )

    def _ask_of_payment(self, asked: Asked, origin: Origin, received: ReceivedMessage) -> None:
        data = dict(asked.data)
        captures = asked.command is Command.CAPTURE_PAYMENT
        # Beside another name a capture's order is the one that the payment is bound to.
        order_id = data.pop("orderId") if captures and (data["paymentId"] or data["cartId"]) else None
        payment = self._find(data)
        about = (self._sessions, payment.id)
        common: dict[str, Any] = {"received": received, "recovery_after_s": self._recovery_after_s}
        if asked.command is Command.CANCEL_PAYMENT:
            cancel_payment(*about, data["reason"], origin, **common)
            return
        amount_minor, reason = _minor_of(data["amount"], payment), data["reason"]
        if captures:
            capture = CapturePayment(amount_minor=amount_minor, order_id=canonical(order_id), reason=reason)
            capture_payment(*about, capture, origin, **common)
        else:
            refund = RefundPayment(amount_minor=amount_minor, reason=reason)
            refund_payment(*about, refund, origin, **common)

    def _find(self, names: Mapping[str, Any]) -> Payment:
        """The payment of all the names that are given: the newest live one, else the newest."""
        columns = {"paymentId": Payment.id, "orderId": Payment.order_id, "cartId": Payment.cart_id}
        given = {name: canonical(names[name]) for name in columns if names.get(name)}
        if not given:
            raise InvalidCommand("paymentId", "name the payment by paymentId, orderId or cartId")
        if "paymentId" in given:
            given["paymentId"] = uuid.UUID(given["paymentId"])
        query = select(Payment).where(*(columns[name] == value for name, value in given.items()))
        with reading(self._sessions) as session:
            payment = session.scalar(query.order_by(Payment.status.in_(DEAD), Payment.id.desc()).limit(1))
        if payment is None:
            raise PaymentNotFound("Payment not found")
        return payment


class CommandConsumer(TopicConsumer):
    """Reads commands and carries them out, one after the other; what is refused is answered.

    It has a group and a thread of its own beside the consumer of requests: requests need Redis and no
    database, commands the other way round, and an outage of the one is not to hold up the other.
    """

    def __init__(
        self,
        consumer: Consumer,
        deliveries: Deliveries,
        topic_prefix: str,
        desk: Desk,
        topics: Iterable[Command | Notice] = OTHERS,
    ) -> None:
        """`deliveries` carry answers and dead letters."""
        self._desk = desk
        self._topics = {topic_prefix + each: each for each in topics}
        self._answer_prefix = topic_prefix
        super().__init__(consumer, deliveries, sorted(map(str, self._topics.values())), topic_prefix)

    def handle(self, messages: list[Message], stop: threading.Event) -> bool:
        """Carry out a few commands, in their order; False when stopped before the last one."""
        return all(self._handle(message, stop) for message in messages)

    def _handle(self, message: Message, stop: threading.Event) -> bool:
        command = self._topics[message.topic() or ""]
        place = f"{command}/{message.partition()}/{message.offset()}"
        try:
            asked = read_command(command, headers_of(message), _bytes(message.value()), place)
            self.was_readable()
            with log_context(command=str(command), command_id=asked.id), span("command", asked.traceparent):
                return self.insist(functools.partial(self._carry_out, asked), stop)
        except InvalidEvent as error:
            return self.bury(message, error, stop)
        except Exception as error:
            # Not to hold up what comes behind it; the letter can be sent again once the fault is mended.
            log.exception("a command failed")
            return self.bury(message, CommandFailed(type(error).__name__), stop)

    def _carry_out(self, asked: Asked) -> bool:
        """Carry out a command and answer a refusal; False while whatever that needs is away."""
        try:
            refusal = self._desk.carry_out(asked)
        except OrderServiceUnavailable as error:
            log.warning("the order service is away; the command waits", reason=str(error))
            return False
        except Exception as error:
            if not is_database_down(error):
                raise
            log.warning("the database is away; the command waits", reason=reason_of(error))
            return False
        COMMANDS.labels(asked.command, "refused" if refusal else "taken").inc()
        if refusal is None:
            log.info("command taken")
            return True
        code, _, reason = refusal.partition(": ")
        log.info("command refused", error_code=code)
        answer = rejection(asked, code, reason, datetime.now(UTC), self._answer_prefix)
        return self.deliver((0, answer.topic, answer.key, answer.value, answer.headers))


def _code(error: PaymentError | MoneyError) -> str:
    return error.code if isinstance(error, PaymentError) else InvalidCommand.code


def _minor_of(amount: Decimal | int | None, payment: Payment) -> int | None:
    if amount is None:
        return None
    if amount <= 0:
        raise InvalidCommand("amount", "Must be greater than 0.")
    return Money.from_decimal(amount, payment.currency).amount_minor


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
