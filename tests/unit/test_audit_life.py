"""The demo's audit covers captures and refunds: every contradiction between the sides is found."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.audit_rows import (
    BACK,
    CAPTURE,
    HOLD,
    Rows,
    captured_in_part,
    charge,
    event,
    payment,
    refund,
    refund_event,
    refunded,
    voided,
)


@pytest.mark.parametrize("lived", [refunded, captured_in_part, voided])
def test_a_whole_life_that_agrees_has_no_findings(lived: Callable[[], Rows]) -> None:
    """Refunds, captures in part and voids that all sides tell alike are accounted for."""
    assert lived().findings() == []


def test_a_refund_at_the_dashboard_is_one_of_ours_by_its_id() -> None:
    """Such a refund names no operation; the one that was made for it here names the refund."""
    rows = refunded()
    rows.refunds = [refund(operation_id=None)]
    assert rows.findings() == []


LIFE: dict[str, tuple[Callable[[], Rows], Callable[[Rows], Any], str]] = {
    "a refund missing here": (
        lambda: Rows([charge(amount_refunded=5000)], [payment()], [event()], [refund()]),
        lambda rows: rows,
        "Stripe's refund re_back of 5000 is not recorded",
    ),
    "money that went back unrecorded": (
        lambda: Rows([charge(amount_refunded=5000)], [payment()], [event()], [refund()]),
        lambda rows: rows,
        "50.00 USD went back, recorded is 0.00 USD",
    ),
    "a refund missing at Stripe": (
        refunded,
        lambda rows: rows.refunds.clear(),
        "Stripe has no refund re_back",
    ),
    "a refund of no charge": (
        refunded,
        lambda rows: rows.refunds.append(refund("x", charge_id="ch_x")),
        "which is none",
    ),
    "a refund made twice at Stripe": (
        refunded,
        lambda rows: rows.refunds.append(refund("again", operation_id="op_back")),
        "re_again of 5000 is not recorded",
    ),
    "a refund over another amount": (
        refunded,
        lambda rows: rows.refunds.__setitem__(0, refund(amount=4000)),
        "is over 50.00 USD, Stripe's over 4000 usd",
    ),
    "a refund of another's operation": (
        refunded,
        lambda rows: rows.refunds.__setitem__(0, refund(operation_id="op_x")),
        "which names op_x",
    ),
    "a refund that failed at Stripe": (
        refunded,
        lambda rows: rows.refunds.__setitem__(0, refund(status="failed")),
        "is succeeded, Stripe's re_back is failed",
    ),
    "sums that do not fit the status": (
        refunded,
        lambda rows: rows.payments.__setitem__(0, payment(**BACK | {"status": "refunded"})),
        "it is refunded with 15000 captured and 5000 refunded",
    ),
    "a sum that its refunds do not make": (
        refunded,
        lambda rows: rows.payments.__setitem__(0, payment(**BACK | {"refunded_minor": 4000})),
        "that succeeded are over 5000, recorded is 4000",
    ),
    "a refund that nobody heard of": (refunded, lambda rows: rows.events.pop(), "under 0 ids"),
    "a refund announced twice": (
        refunded,
        lambda rows: rows.events.append(refund_event(event_id="event_x")),
        "under 2 ids",
    ),
    "a refund announced as failed": (
        refunded,
        lambda rows: rows.events.__setitem__(1, refund_event(topic="refund-failed")),
        "the refund has succeeded",
    ),
    "a refund announced over another amount": (
        refunded,
        lambda rows: rows.events.__setitem__(1, refund_event(amount_minor=1)),
        "says 50.00 (1) USD",
    ),
    "an event of a refund that is none": (
        refunded,
        lambda rows: rows.events.__setitem__(1, refund_event(refund_id="op_x")),
        "which is not the payment's",
    ),
    "a capture of more than was asked": (
        captured_in_part,
        lambda rows: rows.charges.__setitem__(0, charge(amount_captured=7000, amount_refunded=8000)),
        "took 70.00 USD, recorded is 60.00 USD",
    ),
    "a capture whose rest was kept": (
        captured_in_part,
        lambda rows: rows.refunds.clear(),
        "60.00 USD was taken and 0.00 USD released",
    ),
    "a capture operation over another amount": (
        captured_in_part,
        lambda rows: rows.payments.__setitem__(1, payment(**CAPTURE | {"operation_amount_minor": 5000})),
        "took 5000, the payment says 6000",
    ),
    "a hold that nobody heard of": (
        captured_in_part,
        lambda rows: rows.events.pop(0),
        "no event says payment-authorized",
    ),
    "money of a hold that was let go": (
        voided,
        lambda rows: rows.charges.__setitem__(0, charge(amount_captured=1, amount_refunded=14999)),
        "took 0.01 USD, recorded is 0.00 USD",
    ),
    "a cancel that ended nothing": (
        captured_in_part,
        lambda rows: rows.payments.append(payment(**HOLD | {"kind": "cancel", "operation_id": "op_cancel"})),
        "cancel op_cancel succeeded, yet it is succeeded",
    ),
}


@pytest.mark.parametrize("mismatch", LIFE)
def test_a_contradiction_in_a_whole_life_is_found(mismatch: str) -> None:
    """Refunds and captures that one side tells otherwise than another are unaccounted for."""
    lived, change, says = LIFE[mismatch]
    rows = lived()
    change(rows)
    assert [each for each in rows.findings() if says in each.says and each.kind == "unaccounted"] != []
