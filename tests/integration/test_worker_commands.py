"""The Kafka door: commands take effect once, refused ones are answered, and none is lost."""

import json
import logging
import threading
import uuid
from collections.abc import Callable
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from payment_worker.commands import Desk
from shared.command_messages import read_command
from shared.events import DEAD_LETTERS
from shared.payments import Command
from tests.conftest import Servers
from tests.door import SOON_S, Door, cart
from tests.factories import as_json, new_uuid
from tests.outages import held_down
from tests.topics import read_topics
from tests.waiting import LONGEST_S, wait_until

HUNDRED, FORTY, NOTHING = Decimal("100.00"), Decimal("40.00"), Decimal("0.00")
AUTHORIZE, CAPTURE, CANCEL, REFUND = Command
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def test_a_cart_is_held(door: Door) -> None:
    """The same as over HTTP: a hold in the command's words, its ids and its trace carried on."""
    value = cart(orderId=new_uuid()) | {"unknown": "is ignored"}
    door.ask(AUTHORIZE, value, ce_id="c-1", ce_correlationid="checkout-7", traceparent=TRACE)
    (payment,) = door.payments()
    assert (payment["status"], payment["amount"]) == ("authorized", HUNDRED)
    assert (payment["customerId"], payment["orderId"]) == (value["customerId"], value["orderId"])
    assert {row.correlation_id for row in door.shop.bench.outbox()} == {"checkout-7"}
    assert {row.traceparent for row in door.shop.bench.outbox()} == {TRACE}
    (noted,) = door.inbox()
    assert (noted["source"], noted["message_id"], noted["state"]) == ("authorize-payment", "c-1", "processed")
    assert (str(noted["payment_id"]), noted["error"]) == (payment["id"], None)
    assert noted["correlation_id"] == "checkout-7"
    assert "unknown" not in noted["payload"]
    again = door.shop.api.post(
        {name: value[name] for name in ("cartId", "customerId", "amount", "currency")},
        path="/payments/authorize",
    )
    assert (again.status, again.payment["id"]) == (201, payment["id"])


def test_the_whole_life_of_a_cart(door: Door) -> None:
    """Held, captured in part in the order's name, refunded by the order, without one HTTP request."""
    value, order = cart(), new_uuid()
    door.ask(AUTHORIZE, value)
    door.ask(CAPTURE, {"cartId": value["cartId"].upper(), "orderId": order, "amount": FORTY})
    (payment,) = door.payments()
    assert (payment["status"], payment["capturedAmount"], payment["orderId"]) == ("succeeded", FORTY, order)
    door.ask(REFUND, {"orderId": order, "amount": Decimal("15.00"), "reason": "damaged"})
    door.ask(REFUND, {"paymentId": payment["id"]})
    assert door.shop.sums(payment["id"]) == ("refunded", FORTY, FORTY)
    refunds = door.shop.api.get(f"/payments/{payment['id']}/refunds").body["refunds"]
    assert [each["reason"] for each in refunds] == ["damaged", None]
    door.shop.assert_history_is_whole(payment["id"])


@pytest.mark.parametrize("name", ["paymentId", "orderId", "cartId"])
def test_a_hold_is_let_go_by_any_of_its_names(door: Door, name: str) -> None:
    """The payment, its order or its cart."""
    value = cart(orderId=new_uuid())
    door.ask(AUTHORIZE, value)
    (payment,) = door.payments()
    names = {"paymentId": payment["id"], "orderId": value["orderId"], "cartId": value["cartId"]}
    door.ask(CANCEL, {name: names[name], "reason": "out of stock"})
    assert door.shop.sums(payment["id"]) == ("cancelled", NOTHING, NOTHING)


def test_an_order_stands_for_its_live_payment(door: Door) -> None:
    """Not for the one that failed before, nor for one that somebody else's order has."""
    order = new_uuid()
    failed = door.shop.pay(Decimal("9.13"), orderId=order)
    paid = door.shop.pay(orderId=order)
    other = door.shop.pay()
    door.ask(REFUND, {"orderId": order})
    statuses = [door.shop.payment(each)["status"] for each in (failed, paid, other)]
    assert statuses == ["failed", "refunded", "succeeded"]


def test_a_command_that_comes_again_does_nothing(door: Door) -> None:
    """By ce_id, else by eventId in the value: one refund, however often the message comes."""
    payment_id = door.shop.pay()
    ask = {"paymentId": payment_id, "amount": Decimal("10.00")}
    for _ in range(3):
        door.send(REFUND, ask, ce_id="one")
        door.send(REFUND, ask | {"eventId": "two"})
    door.handle(6)
    assert door.shop.sums(payment_id) == ("partially_refunded", HUNDRED, Decimal("20.00"))
    assert len(door.inbox()) == 2


def test_without_an_id_a_message_is_its_place(door: Door) -> None:
    """Two messages that say the same are two; the same one, read again, is one."""
    payment_id = door.shop.pay()
    door.send(REFUND, *[{"paymentId": payment_id, "amount": Decimal("10.00")}] * 2)
    door.handle(2)
    expected = ("partially_refunded", HUNDRED, Decimal("20.00"))
    assert door.shop.sums(payment_id) == expected
    for row in door.kafka.committed(door.kafka.assignment(), timeout=LONGEST_S):
        if row.offset > 0:
            door.kafka.seek(TopicPartition(row.topic, row.partition, 0))
    door.handle(2)
    assert door.shop.sums(payment_id) == expected


def test_the_same_command_in_two_consumers_at_once(door: Door) -> None:
    """Racing desks, as after a rebalance: the inbox lets one of them do it."""
    payment_id = door.shop.pay()
    message = {"paymentId": payment_id, "amount": FORTY}
    asked = read_command(REFUND, [("ce_id", b"racing")], as_json(message).encode(), "nowhere")
    desk = Desk(door.shop.bench.sessions, door.settings)
    answers: list[str | None] = []
    threads = [threading.Thread(target=lambda: answers.append(desk.carry_out(asked))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST_S)
    assert answers == [None] * 10
    door.shop.work()
    assert door.shop.sums(payment_id) == ("partially_refunded", HUNDRED, FORTY)


REFUSED: list[tuple[Command, dict[str, Any], str, str]] = [
    (AUTHORIZE, cart(amount=0), "VALIDATION_FAILED", "amount"),
    (AUTHORIZE, cart(amount=49), "VALIDATION_FAILED", "amount"),
    (AUTHORIZE, cart(amount=10**15), "VALIDATION_FAILED", "amount"),
    (AUTHORIZE, cart(amount=10**400), "VALIDATION_FAILED", "amount"),
    (AUTHORIZE, cart(currency="XXX"), "VALIDATION_FAILED", "currency"),
    (CAPTURE, {"paymentId": new_uuid()}, "PAYMENT_NOT_FOUND", "not found"),
    (CANCEL, {"orderId": "nobody's"}, "PAYMENT_NOT_FOUND", "not found"),
    (REFUND, {}, "VALIDATION_FAILED", "paymentId"),
    (REFUND, {"orderId": None, "amount": 5}, "VALIDATION_FAILED", "paymentId"),
    (CANCEL, {"orderId": "4242 4242 4242 4242"}, "CARD_DATA_REFUSED", "orderId"),
    (CANCEL, {"orderId": "x", "cvc": "123"}, "CARD_DATA_REFUSED", "cvc"),
]


def test_a_command_that_is_refused_is_answered(door: Door) -> None:
    """payment-rejected names the command, what it was about and why; no payment is stored."""
    for number, (command, value, _, _) in enumerate(REFUSED):
        door.send(command, value, ce_id=f"c-{number}", ce_correlationid="mine")
    door.handle(len(REFUSED))
    answers = {each.value["commandId"]: each for each in door.rejections(len(REFUSED))}
    notes = {each["message_id"]: each for each in door.inbox()}
    assert len(notes) == len(REFUSED)
    for number, (command, value, code, says) in enumerate(REFUSED):
        answer, noted = answers[f"c-{number}"], notes[f"c-{number}"]
        assert (answer.value["command"], answer.value["errorCode"]) == (str(command), code)
        assert says in answer.value["errorMessage"]
        named = {} if code == "CARD_DATA_REFUSED" else value
        assert (answer.value["cartId"], answer.value["orderId"]) == (
            named.get("cartId"),
            named.get("orderId"),
        )
        assert (answer.named["ce_type"], answer.named["ce_causationid"]) == (
            "payment-rejected.v1", f"c-{number}",
        )  # fmt: skip
        assert (answer.named["ce_correlationid"], answer.named["ce_specversion"]) == ("mine", "1.0")
        assert noted["error"].startswith(f"{code}: ")
        assert "4242 4242" not in str(noted["payload"]) + answer.raw.decode()
    assert door.payments() == []
    assert sum(door.committed(command) for command in Command) == len(REFUSED)


def test_what_the_state_forbids_is_answered(door: Door) -> None:
    """The same codes as over HTTP, the amount in the payment's currency."""
    payment_id = door.shop.pay()
    door.send(CAPTURE, {"paymentId": payment_id}, ce_id="a")
    door.send(CANCEL, {"paymentId": payment_id}, ce_id="b")
    for name, amount in (("c", "100.01"), ("d", "0"), ("e", "-5"), ("f", "1.001")):
        door.send(REFUND, {"paymentId": payment_id, "amount": Decimal(amount)}, ce_id=name)
    door.handle(6)
    codes = {each.value["commandId"]: each.value["errorCode"] for each in door.rejections(6)}
    assert codes == {
        "a": "PAYMENT_CONFLICT", "b": "PAYMENT_CONFLICT", "c": "AMOUNT_EXCEEDED",
        "d": "VALIDATION_FAILED", "e": "VALIDATION_FAILED", "f": "VALIDATION_FAILED",
    }  # fmt: skip
    assert door.shop.sums(payment_id) == ("succeeded", HUNDRED, NOTHING)


def test_a_refusal_is_final(door: Door) -> None:
    """A repeat gets the same answer under the same event id, though it could be carried out by then."""
    value, payment_id = {"amount": FORTY}, door.shop.start()
    door.send(REFUND, value | {"paymentId": payment_id}, ce_id="early")
    handled = door.consumer.run_once
    wait_until(lambda: handled(door.stop), SOON_S, "the command")
    door.shop.work()
    door.ask(REFUND, value | {"paymentId": payment_id}, ce_id="early")
    first, second = door.rejections(2)
    assert first.value == second.value
    assert first.value["errorMessage"] == "A payment that is pending cannot be refunded"
    assert first.named["ce_id"] == second.named["ce_id"]
    assert door.shop.sums(payment_id) == ("succeeded", HUNDRED, NOTHING)


def test_what_was_carried_out_is_not_refused_afterwards(door: Door) -> None:
    """A repeat of a refund of everything finds nothing left, and nobody is told that it was refused."""
    payment_id = door.shop.pay()
    for _ in range(2):
        door.ask(REFUND, {"paymentId": payment_id}, ce_id="all")
    door.ask(CAPTURE, {"paymentId": payment_id}, ce_id="refused")
    (answer,) = door.rejections(1)
    assert answer.value["commandId"] == "refused"
    assert door.shop.sums(payment_id) == ("refunded", HUNDRED, HUNDRED)


def spelled(value: Any) -> bytes:
    """A value as bytes, also one that no text can hold: JSON can spell half a character."""
    return json.dumps(value, default=float).encode() if isinstance(value, dict) else bytes(value)


UNREADABLE: list[tuple[Command, Any]] = [
    (AUTHORIZE, b""), (AUTHORIZE, b"{"), (AUTHORIZE, b"null"), (AUTHORIZE, b"[]"), (AUTHORIZE, b"\xff\xfe"),
    (AUTHORIZE, {}), (AUTHORIZE, cart(cartId="cart-1")), (AUTHORIZE, cart(cartId=5)),
    (AUTHORIZE, cart(amount="100")), (AUTHORIZE, cart(amount=True)), (AUTHORIZE, cart(amount=-1)),
    (AUTHORIZE, cart(amount=Decimal("100.0"))),
    (AUTHORIZE, cart(currency="usd")), (AUTHORIZE, cart(currency="USD\n")),
    (AUTHORIZE, cart(paymentMethodId="tok_visa")), (AUTHORIZE, cart(customerId="me")),
    (CAPTURE, {"paymentId": "x"}), (CAPTURE, {"orderId": "\x00"}), (CAPTURE, {"orderId": "x" * 256}),
    (CAPTURE, {"orderId": "x", "amount": "5"}), (CANCEL, {"orderId": ""}), (CANCEL, {"cartId": "\ud800"}),
    (CANCEL, {"cartId": "x", "reason": "a\nb"}), (REFUND, {"cartId": "x", "reason": "x" * 501}),
    (REFUND, b'{"cartId": "x", "amount": NaN}'),
    (REFUND, b'{"cartId": "x", "amount": 1e99999999999999999999}'),
    (REFUND, {"cartId": "x", "eventId": "a b"}), (REFUND, b"[" * 5_000),
]  # fmt: skip


def test_what_cannot_be_read_goes_to_the_dead_letters(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """As it came, with its origin and the field that is wrong; what comes behind it is carried out."""
    with caplog.at_level(logging.CRITICAL):
        for command, value in UNREADABLE:
            door.send(
                command, json.dumps(value, default=float).encode() if isinstance(value, dict) else value
            )
        door.send(AUTHORIZE, cart(), ce_id="a b")
        door.send(AUTHORIZE, cart())
        door.handle(len(UNREADABLE) + 2)
    letters = read_topics(door.settings, DEAD_LETTERS, count=len(UNREADABLE) + 1)
    assert {each.named["dlq_error_class"] for each in letters} == {"SchemaBroken", "UnreadableMessage"}
    assert all(each.named["dlq_topic"].startswith(door.settings.kafka_topic_prefix) for each in letters)
    assert len(door.inbox()) == len(door.payments()) == 1
    said = [each.named["dlq_error_message"] for each in letters]
    assert "authorize-payment: cartId breaks the rule format" in said
    assert "capture-payment: orderId breaks the rule pattern" in said


def test_a_command_waits_for_the_database(door: Door, servers: Servers) -> None:
    """While it is away nothing is committed; then all are carried out, once and in their order."""
    payment_id = door.shop.pay()
    door.ask(CANCEL, {"orderId": "joins the group first"})
    for number in range(1, 4):
        door.send(REFUND, {"paymentId": payment_id, "amount": Decimal(number)}, ce_id=str(number))
    waited = threading.Event()
    real = door.consumer._stay

    def stay(pause_s: float) -> None:
        waited.set()
        real(pause_s)

    door.consumer._stay = stay  # type: ignore[method-assign]
    failures: list[BaseException] = []

    def consume() -> None:
        try:
            handled = 0
            while handled < 3:
                handled += door.consumer.run_once(door.stop)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    thread = threading.Thread(target=consume)
    with held_down(servers.stack, "postgres"):
        thread.start()
        assert waited.wait(LONGEST_S)
        assert door.committed(REFUND) == 0
    thread.join(LONGEST_S)
    assert (thread.is_alive(), failures) == (False, [])
    assert door.committed(REFUND) == 3

    def refunds() -> Any:
        answer = door.shop.api.get(f"/payments/{payment_id}/refunds")
        # A connection from before the outage may be the first that is tried.
        return answer.body["refunds"] if answer.status == HTTPStatus.OK else None

    shown = wait_until(refunds, LONGEST_S, "the database")
    assert [each["amount"] for each in shown] == [Decimal(f"{number}.00") for number in (1, 2, 3)]


def test_a_fault_of_ours_holds_nothing_up(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What breaks here is logged and laid aside without its values; the next command is carried out."""
    real = Desk._authorize

    def authorize(self: Desk, data: dict[str, Any], *rest: Any) -> None:
        if data["amount"] == 666:
            raise LookupError("with a secret")
        real(self, data, *rest)

    monkeypatch.setattr(Desk, "_authorize", authorize)
    door.send(AUTHORIZE, cart(amount=666), cart(amount=700))
    with caplog.at_level(logging.CRITICAL):
        door.handle(2)
    (letter,) = read_topics(door.settings, DEAD_LETTERS, count=1)
    assert letter.named["dlq_error_class"] == "CommandFailed"
    assert letter.named["dlq_error_message"] == "LookupError"
    assert [each["amount"] for each in door.payments()] == [Decimal("7.00")]


def test_a_consumer_takes_up_where_the_last_one_stopped(new_door: Callable[[], Door]) -> None:
    """What was committed is not looked at again by the next of the group; what came since is."""
    earlier = new_door()
    earlier.ask(AUTHORIZE, cart(), ce_id=str(uuid.uuid4()))
    earlier.close()
    later = new_door()
    later.ask(AUTHORIZE, cart(), ce_id=str(uuid.uuid4()))
    assert [row["state"] for row in later.inbox()] == ["processed"] * 2
    assert later.committed(AUTHORIZE) == 2
