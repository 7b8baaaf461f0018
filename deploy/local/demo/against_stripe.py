"""What a payment's rows say that Stripe's charges and refunds do not, and the other way round; pure."""

from collections.abc import Iterator
from typing import Final

from deploy.local.demo.rows import ChargeRow, PaymentRow, RefundRow, listed
from shared.gateways.stripe_amounts import from_gateway_minor
from shared.money import Money, MoneyError

PAID: Final = ("succeeded", "partially_refunded", "refunded")
FINISHED: Final = (*PAID, "failed", "cancelled")
PRIMARY: Final = ("charge", "authorize")


def against_stripe(
    rows: list[PaymentRow], charges: list[ChargeRow], refunds: list[RefundRow]
) -> Iterator[str]:
    """Every contradiction between one payment, its charges and those charges' refunds, in words."""
    payment = rows[0]
    yield from _judge_sums(payment)
    yield from _judge_primaries(rows, charges)
    yield from _judge_settlements(rows)
    good = [charge for charge in charges if charge.status == "succeeded"]
    if payment.status in PAID and len(good) != 1:
        found = listed(charge.charge_id for charge in good)
        yield f"it is {payment.status} with {len(good)} successful charges: {found}"
    if payment.status == "failed" and good:
        yield f"it is failed, yet Stripe took {listed(charge.charge_id for charge in good)}"
    try:
        for charge in good:
            own = [refund for refund in refunds if refund.charge_id == charge.charge_id]
            yield from _judge_charge(payment, charge, own)
        yield from _judge_refunds(rows, refunds)
    except MoneyError as error:
        yield f"an amount at Stripe cannot be: {error}"


def _judge_sums(payment: PaymentRow) -> Iterator[str]:
    """The status says what the payment's own sums say."""
    taken, back = payment.captured_minor, payment.refunded_minor
    fits = {
        "succeeded": taken > 0 == back,
        "partially_refunded": 0 < back < taken,
        "refunded": 0 < back == taken,
    }.get(payment.status, taken == 0 == back)
    if not fits:
        yield f"it is {payment.status} with {taken} captured and {back} refunded"


def _judge_primaries(rows: list[PaymentRow], charges: list[ChargeRow]) -> Iterator[str]:
    """Each charge or hold agrees with what Stripe made of it, and their ends with the payment's."""
    primaries = [row for row in rows if row.kind in PRIMARY]
    for row in primaries:
        ends = {charge.status for charge in charges if charge.operation_id == row.operation_id}
        name = f"{row.kind} {row.operation_id}"
        if row.operation_state == "succeeded" and ends != {"succeeded"}:
            yield f"{name} succeeded, its charges at Stripe: {listed(ends)}"
        if row.operation_state == "failed" and "succeeded" in ends:
            yield f"{name} failed, yet a charge of it succeeded at Stripe"
        if row.operation_amount_minor != row.amount_minor:
            yield f"{name} is over {row.operation_amount_minor}, the payment over {row.amount_minor}"
    status, states = rows[0].status, {row.operation_state for row in primaries}
    # A hold that was let go is cancelled, and so is a charge whose customer never acted.
    if (status in PAID and "succeeded" not in states) or (status == "failed" and "succeeded" in states):
        yield f"it is {status}, its charges here: {listed(states)}"


def _judge_settlements(rows: list[PaymentRow]) -> Iterator[str]:
    """A capture that succeeded took what the payment says; a cancel that succeeded ended it."""
    for row in rows:
        if row.operation_state != "succeeded":
            continue
        if row.kind == "capture" and row.operation_amount_minor != row.captured_minor:
            taken = f"the payment says {row.captured_minor}"
            yield f"capture {row.operation_id} took {row.operation_amount_minor}, {taken}"
        if row.kind == "cancel" and row.status not in {"cancelled", "failed"}:
            yield f"cancel {row.operation_id} succeeded, yet it is {row.status}"


def _judge_charge(payment: PaymentRow, charge: ChargeRow, refunds: list[RefundRow]) -> Iterator[str]:
    def money(amount: int) -> Money:
        return from_gateway_minor(amount, charge.currency)

    name, due = f"charge {charge.charge_id}", Money(payment.amount_minor, payment.currency)
    if money(charge.amount) != due:
        yield f"{name} is over {money(charge.amount)}, the payment over {due}"
        return
    taken, recorded = money(charge.amount_captured), Money(payment.captured_minor, payment.currency)
    if taken != recorded:
        yield f"{name} took {taken}, recorded is {recorded}"
    # Stripe counts what it released of a hold as refunded; money that was never taken cannot go back.
    released = sum(refund.amount for refund in refunds if refund.is_release)
    if charge.amount_captured + released != charge.amount:
        yield f"of {name} {taken} was taken and {money(released)} released, together not {due}"
    gone, back = money(charge.amount_refunded - released), Money(payment.refunded_minor, payment.currency)
    if gone != back:
        yield f"of {name} {gone} went back, recorded is {back}"
    if payment.transaction_id != charge.charge_id:
        yield f"it records charge {payment.transaction_id}, Stripe's is {charge.charge_id}"


def _judge_refunds(rows: list[PaymentRow], refunds: list[RefundRow]) -> Iterator[str]:
    """Each of our refunds is one of Stripe's, each of Stripe's is one of ours, and both say the same."""
    ours = {row.gateway_ref: row for row in rows if row.kind == "refund"}
    theirs = {refund.refund_id: refund for refund in refunds if not refund.is_release}
    for row in (row for row in rows if row.kind == "refund" and row.operation_state == "succeeded"):
        if row.gateway_ref not in theirs:
            yield f"refund {row.operation_id} succeeded, and Stripe has no refund {row.gateway_ref}"
    for refund in theirs.values():
        if own := ours.get(refund.refund_id):
            yield from _judge_refund(own, refund)
        else:
            yield f"Stripe's refund {refund.refund_id} of {refund.amount} is not recorded"
    back = sum(row.operation_amount_minor or 0 for row in ours.values() if row.operation_state == "succeeded")
    if back != rows[0].refunded_minor:
        yield f"its refunds that succeeded are over {back}, recorded is {rows[0].refunded_minor}"


def _judge_refund(row: PaymentRow, refund: RefundRow) -> Iterator[str]:
    name = f"refund {row.operation_id}"
    if refund.operation_id not in {None, row.operation_id}:
        yield f"{name} is Stripe's {refund.refund_id}, which names {refund.operation_id}"
    if (refund.status == "succeeded") != (row.operation_state == "succeeded"):
        yield f"{name} is {row.operation_state}, Stripe's {refund.refund_id} is {refund.status}"
    asked = Money(row.operation_amount_minor or 0, row.currency)
    if from_gateway_minor(refund.amount, refund.currency) != asked:
        yield f"{name} is over {asked}, Stripe's over {refund.amount} {refund.currency}"
