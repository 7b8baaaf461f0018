"""The audit of `make chaos` finds what neighbours were told wrongly, twice under two ids, or not at all."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from deploy.local.demo.orders import Case
from deploy.local.demo.rows import Finding
from deploy.local.ordering import Order, Outcome
from tests.audit_rows import FAILED_PAYMENT, payment
from tests.chaos.courses import Course
from tests.chaos.told import Came, Entry, digest, judge_callbacks, judge_processed, judge_webhooks

ENTRIES = [
    Entry("a", "a1", "payment-requested", "one"),
    Entry("a", "a2", "payment-succeeded", "two"),
    Entry("b", "b1", "payment-requested", "three"),
    Entry("b", "b2", "payment-failed", "four"),
]


def says(findings: list[Finding]) -> str:
    """What is found, in words; all of it is unaccounted for."""
    assert {each.kind for each in findings} <= {"unaccounted"}
    return "; ".join(f"{each.subject}: {each.says}" for each in findings)


def came() -> dict[str, Came]:
    """Both payments' webhooks: the first one of a was refused and came again, b's came in between."""
    return {
        "a1": Came("a", "one", 1, 2, 3),
        "b1": Came("b", "three", 2, 1, 2),
        "a2": Came("a", "two", 5, 1, 5),
        "b2": Came("b", "four", 4, 1, 4),
    }


def test_webhooks_that_came_in_order_have_no_findings() -> None:
    """A repeat, and others in between, are as they should be."""
    assert list(judge_webhooks(ENTRIES, came())) == []


@pytest.mark.parametrize(
    ("event_id", "change", "found"),
    [
        ("a2", None, "a: payment-succeeded a2 came by no webhook"),
        ("a2", {"taken": None}, "was never taken"),
        ("a2", {"says": "three"}, "said something else"),
        ("a2", {"payment_id": "b"}, "said something else"),
        ("a2", {"first": 2}, "a2 came by webhook before the one before it was taken"),
        ("a1", {"taken": None}, "a2 came by webhook before the one before it was taken"),
    ],
)
def test_a_webhook_that_is_not_as_it_must_be_is_found(
    event_id: str, change: dict[str, Any] | None, found: str
) -> None:
    """Missing, refused for good, with other words, or ahead of an earlier one of its payment."""
    told = came()
    if change is None:
        del told[event_id]
    else:
        told[event_id] = replace(told[event_id], **change)
    assert found in says(list(judge_webhooks(ENTRIES, told)))


def test_a_webhook_of_no_event_is_found() -> None:
    """Whatever came and was never announced is named."""
    assert says(list(judge_webhooks(ENTRIES[:3], came()))) == "b: webhook b2 is no event of ours"


def test_a_digest_stands_for_the_words_and_not_for_their_arrangement() -> None:
    """Members may come in any order; each digit of an amount counts, and so does the type."""
    said = {"amount": Decimal("1.50"), "currency": "USD"}
    assert digest("t", said) == digest("t", dict(reversed(said.items())))
    assert len({digest("t", said), digest("u", said), digest("t", said | {"amount": Decimal("1.51")})}) == 3


def case(course: Course, name: str = "a", expected: str = "succeeded") -> Case:
    """An order over 150.00 USD of payment `name`."""
    order = Order(amount=Decimal("150.00"), order_id=f"order_{name}", customer_id="user")
    return Case(order=order, label=str(course), expected=expected)


DELIVERED = [case(Course.DELIVERED), case(Course.DELIVERED_DECLINED, "b", "failed"), case(Course.CHARGE, "c")]
TOLD_BACK = {"order_a": {("PAYMENT RECEIVED", "a2")}, "order_b": {("PAYMENT FAILED", "b2")}}


@pytest.mark.parametrize(
    ("told", "subject"),
    [
        (TOLD_BACK, None),
        (TOLD_BACK | {"order_a": set()}, "order_a"),
        (TOLD_BACK | {"order_a": {("PAYMENT FAILED", "a2")}}, "order_a"),
        (TOLD_BACK | {"order_b": {("PAYMENT FAILED", "a2")}}, "order_b"),
        (TOLD_BACK | {"order_b": {("PAYMENT FAILED", "b2"), ("PAYMENT FAILED", "b3")}}, "order_b"),
        (TOLD_BACK | {"order_c": {("PAYMENT RECEIVED", "c2")}}, "order_c"),
    ],
)
def test_callbacks_are_told_the_end_under_its_events_id(
    told: dict[str, set[tuple[str, str]]], subject: str | None
) -> None:
    """Every order of the delivery contract, once in effect, and nobody else's."""
    payments = [payment(), payment("b", **FAILED_PAYMENT), payment("c")]
    findings = list(judge_callbacks(DELIVERED, payments, ENTRIES, told))
    assert [each.subject for each in findings] == ([subject] if subject else [])


def processed(name: str = "a", event_id: str = "p1", **changes: Any) -> Outcome:
    """What the catalog is told of payment `name`."""
    data = {
        "orderId": f"order_{name}",
        "subscriptionId": None,
        "userId": "user",
        "status": "confirmed",
        "transactionId": f"ch_{name}",
        "amount": Decimal("150.00"),
        "currency": "USD",
        **changes,
    }
    return Outcome(event_id, "payment-processed", name, 3, f"op_{name}", data)


def found(*outcomes: Outcome, course: Course = Course.INITIATED) -> str:
    """What is wrong with these, about one order of the catalog's and one that is none of it."""
    cases = [case(course), case(Course.CHARGE, "c")]
    return says(list(judge_processed(cases, [payment(), payment("c")], outcomes)))


def test_the_catalog_is_told_once_of_its_own() -> None:
    """A repeat under the same id is the same event; a subscription stands where others have an order."""
    assert found(processed(), processed()) == ""
    of_subscription = processed(orderId=None, subscriptionId="order_a")
    assert found(of_subscription, course=Course.SUBSCRIBED) == ""
    failed = processed("b", status="failed", transactionId=None)
    cases = [case(Course.INITIATED_DECLINED, "b", "failed")]
    assert list(judge_processed(cases, [payment("b", **FAILED_PAYMENT)], [failed])) == []


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        ([], "under 0 ids"),
        ([processed(), processed(event_id="p2")], "under 2 ids"),
        ([processed(), processed(amount=Decimal("1.50"))], "came with two contents"),
        (
            [processed(), processed("c", event_id="p2")],
            "c: payment-processed was announced, and nobody asked",
        ),
        ([processed(status="failed")], "says status failed, it is confirmed"),
        ([processed(userId="another")], "says user another"),
        ([processed(orderId="order_b")], "says order order_b"),
        ([processed(transactionId="ch_b")], "says charge ch_b"),
        ([processed(amount=Decimal("1.50"))], "says amount 1.50"),
        ([processed(currency="EUR")], "says currency EUR"),
    ],
)
def test_what_the_catalog_is_told_wrongly_is_found(outcomes: list[Outcome], words: str) -> None:
    """Nothing, twice, of other people's payments, or other facts than the payment's."""
    assert words in found(*outcomes)
