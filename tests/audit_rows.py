"""Rows for the demo's audit: payments whose sides agree, for tests that then change one of them."""

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from deploy.local.demo.audit import audit
from deploy.local.demo.rows import ChargeRow, EventRow, Finding, PaymentRow, RefundRow


@dataclass
class Rows:
    """What the sides say."""

    charges: list[ChargeRow]
    payments: list[PaymentRow]
    events: list[EventRow]
    refunds: list[RefundRow] = field(default_factory=list)

    def findings(self) -> list[Finding]:
        """What the audit finds in them."""
        return audit(self.charges, self.refunds, self.payments, self.events)


def charge(name: str = "a", **overrides: Any) -> ChargeRow:
    """A successful charge of 150.00 USD for payment `name`."""
    row = ChargeRow(
        charge_id=f"ch_{name}",
        payment_id=name,
        operation_id=f"op_{name}",
        status="succeeded",
        amount=15000,
        amount_captured=15000,
        amount_refunded=0,
        currency="usd",
    )
    return replace(row, **overrides)


def payment(name: str = "a", **overrides: Any) -> PaymentRow:
    """A succeeded payment of 150.00 USD."""
    row = PaymentRow(
        payment_id=name,
        order_id=f"order_{name}",
        amount_minor=15000,
        captured_minor=15000,
        refunded_minor=0,
        currency="USD",
        status="succeeded",
        transaction_id=f"ch_{name}",
        undelivered=0,
        operation_id=f"op_{name}",
        kind="charge",
        operation_amount_minor=15000,
        operation_state="succeeded",
        gateway_ref=f"pi_{name}",
        in_doubt=False,
        needs_review=False,
    )
    return replace(row, **overrides)


def event(name: str = "a", **overrides: Any) -> EventRow:
    """The event that announces the success of payment `name`."""
    row = EventRow(
        event_id=f"event_{name}",
        topic="payment-succeeded",
        payment_id=name,
        operation_id=f"op_{name}",
        refund_id=None,
        order_id=f"order_{name}",
        status="succeeded",
        amount=Decimal("150.00"),
        amount_minor=15000,
        currency="USD",
        transaction_id=f"ch_{name}",
    )
    return replace(row, **overrides)


FAILED_PAYMENT: dict[str, Any] = {
    "status": "failed",
    "captured_minor": 0,
    "transaction_id": None,
    "operation_state": "failed",
}
FAILED_EVENT: dict[str, Any] = {"topic": "payment-failed", "status": "failed", "transaction_id": None}
DECLINED: dict[str, Any] = {"status": "failed", "amount_captured": 0}


def failed(name: str) -> Rows:
    """A declined payment, consistent on all three sides."""
    return Rows([charge(name, **DECLINED)], [payment(name, **FAILED_PAYMENT)], [event(name, **FAILED_EVENT)])


def consistent() -> Rows:
    """One payment that succeeded and one that was declined; all three sides agree."""
    declined = failed("b")
    return Rows([charge(), *declined.charges], [payment(), *declined.payments], [event(), *declined.events])


HOLD: dict[str, Any] = {"kind": "authorize", "captured_minor": 6000}
CAPTURE: dict[str, Any] = {
    "operation_id": "op_capture",
    "kind": "capture",
    "operation_amount_minor": 6000,
    "captured_minor": 6000,
    "gateway_ref": None,
}
BACK: dict[str, Any] = {"status": "partially_refunded", "refunded_minor": 5000}


def refund(name: str = "back", **overrides: Any) -> RefundRow:
    """A refund of 50.00 USD of payment a, at Stripe."""
    row = RefundRow(
        refund_id=f"re_{name}",
        charge_id="ch_a",
        operation_id=f"op_{name}",
        status="succeeded",
        amount=5000,
        currency="usd",
        is_release=False,
    )
    return replace(row, **overrides)


def refund_row(name: str = "back", **overrides: Any) -> PaymentRow:
    """The same refund, here."""
    facts: dict[str, Any] = BACK | {
        "operation_id": f"op_{name}",
        "kind": "refund",
        "operation_amount_minor": 5000,
        "gateway_ref": f"re_{name}",
    }
    return payment(**facts | overrides)


def refund_event(name: str = "back", **overrides: Any) -> EventRow:
    """The event that announces the same refund."""
    facts: dict[str, Any] = {
        "event_id": f"event_{name}",
        "topic": "refund-succeeded",
        "operation_id": f"op_{name}",
        "refund_id": f"op_{name}",
        "status": None,
        "amount": Decimal("50.00"),
        "amount_minor": 5000,
        "transaction_id": None,
    }
    return event(**facts | overrides)


def refunded() -> Rows:
    """A payment of 150.00 USD of which 50.00 USD went back."""
    return Rows(
        [charge(amount_refunded=5000)],
        [payment(**BACK), refund_row()],
        [event(), refund_event()],
        [refund()],
    )


def captured_in_part() -> Rows:
    """A hold of 150.00 USD of which 60.00 USD was taken; Stripe shows what it released as a refund."""
    released = refund("rest", operation_id=None, amount=9000, is_release=True)
    authorized = event(
        event_id="event_hold", topic="payment-authorized", status="authorized", transaction_id=None
    )
    told = event(amount=Decimal("60.00"), amount_minor=6000, operation_id="op_capture")
    return Rows(
        [charge(amount_captured=6000, amount_refunded=9000)],
        [payment(**HOLD), payment(**CAPTURE)],
        [authorized, told],
        [released],
    )


def voided() -> Rows:
    """A hold of 150.00 USD that was let go."""
    given_up: dict[str, Any] = {"status": "cancelled", "captured_minor": 0}
    authorized = event(topic="payment-authorized", status="authorized", transaction_id=None)
    cancelled = event(
        event_id="event_end",
        topic="payment-cancelled",
        status="cancelled",
        operation_id="op_cancel",
        transaction_id=None,
    )
    return Rows(
        [charge(amount_captured=0, amount_refunded=15000)],
        [payment(kind="authorize", **given_up), payment(kind="cancel", operation_id="op_cancel", **given_up)],
        [authorized, cancelled],
        [refund("all", operation_id=None, amount=15000, is_release=True)],
    )
