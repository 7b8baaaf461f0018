"""The demo's audit finds every kind of mismatch, by row, so that nothing cancels out."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from deploy.local.demo.audit import audit, audit_orders
from deploy.local.demo.rows import ChargeRow, EventRow, OrderRow, PaymentRow
from tests.audit_rows import (
    DECLINED,
    FAILED_EVENT,
    FAILED_PAYMENT,
    Rows,
    charge,
    consistent,
    event,
    failed,
    payment,
)


def test_rows_that_agree_have_no_findings() -> None:
    """A success and a decline that all sides tell alike are accounted for."""
    assert consistent().findings() == []


def test_an_event_that_comes_again_is_no_mismatch() -> None:
    """Kafka delivers at least once: the same event under the same id is the same event."""
    rows = consistent()
    rows.events += rows.events
    assert rows.findings() == []


def test_a_declined_payment_needs_no_charge() -> None:
    """What Stripe refuses before it asks a bank leaves no charge in the ledger."""
    rows = failed("b")
    rows.charges = []
    assert rows.findings() == []


@pytest.mark.parametrize(
    ("currency", "amount_minor", "shown", "at_stripe"),
    [("JPY", 12800, "12800", 12800), ("KWD", 45500, "45.500", 45500), ("ISK", 4900, "4900", 490000)],
)
def test_stripes_units_are_converted(currency: str, amount_minor: int, shown: str, at_stripe: int) -> None:
    """Money is compared in ISO minor units; a charge in other units than Stripe's for it is a mismatch."""
    ours = payment(
        amount_minor=amount_minor,
        captured_minor=amount_minor,
        operation_amount_minor=amount_minor,
        currency=currency,
    )
    told = event(amount=Decimal(shown), amount_minor=amount_minor, currency=currency)
    taken = charge(amount=at_stripe, amount_captured=at_stripe, currency=currency.lower())
    assert audit([taken], [], [ours], [told]) == []
    too_much = charge(amount=at_stripe * 100, amount_captured=at_stripe * 100, currency=currency.lower())
    assert audit([too_much], [], [ours], [told]) != []


def with_charges(*charges: ChargeRow) -> Callable[[Rows], None]:
    """Let Stripe's ledger say this about payment a."""
    return lambda rows: rows.charges.__setitem__(slice(0, 1), charges)


def with_payment(**overrides: Any) -> Callable[[Rows], None]:
    """Let our database say this about payment a."""
    return lambda rows: rows.payments.__setitem__(0, payment(**overrides))


def with_events(*events: EventRow) -> Callable[[Rows], None]:
    """Let Kafka say this about payment a."""
    return lambda rows: rows.events.__setitem__(slice(0, 1), events)


UNACCOUNTED: dict[str, tuple[Callable[[Rows], None], str]] = {
    "a charge of an unknown payment": (with_charges(charge(), charge("x")), "no payment here"),
    "a charge without ids": (with_charges(charge(), charge(payment_id=None)), "no payment here"),
    "a charge of another's operation": (with_charges(charge(operation_id="op_b")), "no payment here"),
    "a success without a charge": (with_charges(), "0 successful charges"),
    "a success with two charges": (with_charges(charge(), charge(charge_id="ch_2")), "2 successful charges"),
    "a success whose only charge was declined": (with_charges(charge(**DECLINED)), "0 successful charges"),
    "a success beside a decline of the same operation": (
        with_charges(charge(), charge(charge_id="ch_2", **DECLINED)),
        "its charges at Stripe: failed, succeeded",
    ),
    "another charge than the recorded one": (
        with_charges(charge(charge_id="ch_2")),
        "it records charge ch_a",
    ),
    "a charge over more": (
        with_charges(charge(amount=15001, amount_captured=15001)),
        "is over 150.01 USD, the payment over 150.00 USD",
    ),
    "a charge in another currency": (with_charges(charge(currency="eur")), "150.00 EUR"),
    "a charge in a currency that is none": (with_charges(charge(currency="xxx")), "cannot be"),
    "a charge captured in part": (with_charges(charge(amount_captured=14000)), "took 140.00 USD"),
    "a charge that went back": (with_charges(charge(amount_refunded=1)), "went back"),
    "money taken for a failed payment": (with_payment(**FAILED_PAYMENT), "yet Stripe took ch_a"),
    "money recorded for a failed payment": (
        with_payment(**FAILED_PAYMENT | {"captured_minor": 15000}),
        "it is failed with 15000 captured",
    ),
    "a failed operation of a success": (with_payment(operation_state="failed"), "its charges here: failed"),
    "a failed operation that took money": (with_payment(**FAILED_PAYMENT), "a charge of it succeeded"),
    "an operation over another amount": (with_payment(operation_amount_minor=1), "is over 1"),
    "no event": (with_events(), "no event says payment-succeeded"),
    "an event of an unknown payment": (with_events(event(), event("x")), "belongs to no payment"),
    "an event of another operation": (with_events(event(operation_id="op_b")), "belongs to no payment"),
    "an outcome under two ids": (with_events(event(), event(event_id="event_2")), "under 2 ids"),
    "an event that contradicts the payment": (with_events(event(**FAILED_EVENT)), "but it is succeeded"),
    "two events that contradict each other": (
        with_events(event(), event(event_id="event_2", **FAILED_EVENT)),
        "was announced, but it is succeeded",
    ),
    "an event that contradicts its topic": (with_events(event(status="failed")), "says failed"),
    "an event over another amount": (with_events(event(amount_minor=15001)), "(15001)"),
    "an event whose amounts differ": (with_events(event(amount=Decimal("1.50"))), "says 1.50"),
    "an event in another currency": (with_events(event(currency="EUR")), "EUR, it is 150.00 USD"),
    "an event of another order": (with_events(event(order_id="order_b")), "says order order_b"),
    "an event of another charge": (with_events(event(transaction_id="ch_b")), "says charge ch_b"),
    "an id with two contents": (with_events(event(), event(currency="EUR")), "came with two contents"),
}


@pytest.mark.parametrize("mismatch", UNACCOUNTED)
def test_a_contradiction_is_found(mismatch: str) -> None:
    """Whatever one side says that another does not is named, and as unaccounted for."""
    change, says = UNACCOUNTED[mismatch]
    rows = consistent()
    change(rows)
    assert [each for each in rows.findings() if says in each.says and each.kind == "unaccounted"] != []


OPEN: dict[str, dict[str, Any]] = {
    "a payment that is pending": {"status": "pending"},
    "a payment that is processing": {"status": "processing"},
    "a payment that waits for its customer": {"status": "requires_action"},
    "an operation in flight": {"operation_state": "in_flight"},
    "an operation in doubt": {"in_doubt": True},
    "an operation for an operator": {"needs_review": True},
    "an event in the outbox": {"undelivered": 1},
    "a payment without an operation": {"operation_id": None, "operation_state": None},
}


@pytest.mark.parametrize("state", OPEN)
def test_what_has_not_ended_is_open(state: str) -> None:
    """Everything that still waits for something is named as open."""
    rows = consistent()
    with_payment(**OPEN[state])(rows)
    assert [each for each in rows.findings() if each.kind == "open" and each.subject == "a"] != []


def test_two_errors_do_not_cancel_out() -> None:
    """One payment charged twice and another never: counts and sums agree, yet both are found."""
    rows = Rows(
        [charge("a"), charge("a", charge_id="ch_c")],
        [payment("a"), payment("c")],
        [event("a"), event("c")],
    )
    assert {each.subject for each in rows.findings()} == {"a", "c"}


def test_swapped_amounts_do_not_cancel_out() -> None:
    """Two charges with each other's amount have the right sum, and both are found."""
    rows = Rows(
        [charge("a", amount=9000, amount_captured=9000), charge("c")],
        [payment("a"), payment("c", amount_minor=9000, captured_minor=9000, operation_amount_minor=9000)],
        [event("a"), event("c", amount=Decimal("90.00"), amount_minor=9000)],
    )
    assert {each.subject for each in rows.findings()} == {"a", "c"}


def test_swapped_outcomes_do_not_cancel_out() -> None:
    """Two payments announced with each other's outcome: as many of each as there should be, both found."""
    rows = consistent()
    rows.events = [event("a", **FAILED_EVENT), event("b")]
    assert {each.subject for each in rows.findings()} == {"a", "b"}


def order(name: str = "a", **overrides: Any) -> OrderRow:
    """An order over 150.00 USD that must succeed and was answered with payment `name`."""
    row = OrderRow(
        order_id=f"order_{name}",
        amount_minor=15000,
        captured_minor=15000,
        refunded_minor=0,
        currency="USD",
        expected="succeeded",
        events=("payment-succeeded",),
        answered=frozenset({name}),
    )
    return replace(row, **overrides)


ORDER_FAILED: dict[str, Any] = {
    "expected": "failed",
    "captured_minor": 0,
    "events": ("payment-failed",),
}


def test_orders_with_their_payments_have_no_findings() -> None:
    """Each order has the one payment that its answers named."""
    rows = consistent()
    assert audit_orders([order("a"), order("b", **ORDER_FAILED)], rows.payments, rows.events) == []


@pytest.mark.parametrize(
    ("orders", "payments", "says"),
    [
        ([order()], [], "has no payment"),
        ([], [payment()], "nobody sent its order"),
        ([order()], [payment(), payment("c", order_id="order_a")], "has 2 payments"),
        ([order(answered=frozenset({"a", "c"}))], [payment()], "the answers named a, c"),
        ([order(answered=frozenset())], [payment()], "the answers named none"),
        ([order(amount_minor=1)], [payment()], "0.01 USD was ordered"),
        ([order(captured_minor=1)], [payment()], "0.01 USD should have been taken, it took 150.00 USD"),
        ([order(refunded_minor=1)], [payment()], "0.01 USD should have gone back, back went 0.00 USD"),
        ([order(events=())], [payment()], "heard was payment-succeeded"),
        ([order(events=("payment-authorized", "payment-succeeded"))], [payment()], "should have announced"),
        ([order(currency="EUR")], [payment()], "150.00 EUR was ordered"),
        ([order(expected="failed")], [payment()], "should be failed"),
    ],
)
def test_an_order_without_exactly_its_payment_is_found(
    orders: list[OrderRow], payments: list[PaymentRow], says: str
) -> None:
    """An order lost, paid under two payments, answered with another, or ended otherwise than it must."""
    findings = audit_orders(orders, payments, [event()])
    assert [each for each in findings if says in each.says] != []
