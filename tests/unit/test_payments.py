"""The table of a payment's life: every pair of statuses, what each edge announces, what can never happen."""

from itertools import product

import pytest

from shared.payments import (
    DEAD,
    OPEN_OPERATION,
    PAID,
    PROCESSED,
    TRANSITIONS,
    UNSETTLED,
    Announcement,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    IllegalTransition,
    InvalidCommand,
    OperationState,
    PaymentConflict,
    PaymentError,
    PaymentNotFound,
    Status,
    check_transition,
)

# Written down a second time, from the product's description and not from the code.
LIFE = {
    "pending": "processing cancelled",
    "processing": "succeeded failed authorized requires_action",
    "requires_action": "processing authorized succeeded failed cancelled",
    "authorized": "succeeded cancelled failed",
    "succeeded": "partially_refunded refunded",
    "partially_refunded": "refunded succeeded",
    "refunded": "partially_refunded succeeded",
    "failed": "",
    "cancelled": "",
}
REFUNDABLE = {Status.SUCCEEDED, Status.PARTIALLY_REFUNDED, Status.REFUNDED}
ANNOUNCED = {
    Status.SUCCEEDED: Announcement.PAYMENT_SUCCEEDED,
    Status.FAILED: Announcement.PAYMENT_FAILED,
    Status.AUTHORIZED: Announcement.PAYMENT_AUTHORIZED,
    Status.CANCELLED: Announcement.PAYMENT_CANCELLED,
    Status.REQUIRES_ACTION: Announcement.PAYMENT_ACTION_REQUIRED,
}
# How much of the money is back; a refund that fails afterwards leads to less again.
GIVEN_BACK = [Status.SUCCEEDED, Status.PARTIALLY_REFUNDED, Status.REFUNDED]


def announced(current: Status, wanted: Status) -> Announcement | None:
    """Return what a change announces, after the product's description."""
    if current not in GIVEN_BACK:
        return ANNOUNCED.get(wanted)
    more = GIVEN_BACK.index(wanted) > GIVEN_BACK.index(current)
    return Announcement.REFUND_SUCCEEDED if more else Announcement.REFUND_FAILED


@pytest.mark.parametrize(("current", "wanted"), list(product(Status, Status)), ids=str)
def test_every_pair_of_statuses(current: Status, wanted: Status) -> None:
    """An edge of the life exists and announces what it should; every other pair is refused by name."""
    if wanted in LIFE[current].split():
        expected = announced(current, wanted)
        assert check_transition(current, wanted) is expected
        assert TRANSITIONS[current, wanted] is expected
    else:
        assert (current, wanted) not in TRANSITIONS
        with pytest.raises(IllegalTransition, match=f"that is {current} cannot become {wanted}"):
            check_transition(current, wanted)


def test_every_status_can_be_reached() -> None:
    """From pending every other status can come about, so none is a leftover."""
    reached = {Status.PENDING}
    for _ in Status:
        reached |= {wanted for current, wanted in TRANSITIONS if current in reached}
    assert reached == set(Status) == set(LIFE)


def test_nothing_comes_after_a_dead_payment() -> None:
    """Failed and cancelled are final: exactly these have no way out."""
    assert {status for status in Status if not any(current is status for current, _ in TRANSITIONS)} == DEAD
    assert {Status.FAILED, Status.CANCELLED} == DEAD


def test_a_settled_payment_never_becomes_unsettled() -> None:
    """What is paid stays among the paid; no late message leads back to an open status or a failure."""
    assert {wanted for current, wanted in TRANSITIONS if current in PAID} <= PAID
    assert PAID == REFUNDABLE


def test_money_is_announced_exactly_when_it_was_taken() -> None:
    """Every way from unpaid to paid, and only that, announces a success; every way to failed a failure."""
    took = {edge for edge in TRANSITIONS if edge[0] not in PAID and edge[1] in PAID}
    failed = {edge for edge in TRANSITIONS if edge[1] is Status.FAILED}
    named = {
        event: {edge for edge in TRANSITIONS if TRANSITIONS[edge] is event} for event in TRANSITIONS.values()
    }
    assert named[Announcement.PAYMENT_SUCCEEDED] == took
    assert named[Announcement.PAYMENT_FAILED] == failed
    assert {wanted for _, wanted in took} == {Status.SUCCEEDED}


def test_the_groups_of_statuses_fit_together() -> None:
    """Processed is paid or dead; whoever waits, waits for neither."""
    assert PROCESSED == PAID | DEAD
    assert {Status.PENDING, Status.PROCESSING} == UNSETTLED
    assert not UNSETTLED & PROCESSED
    assert OperationState.SUCCEEDED not in OPEN_OPERATION
    assert set(OperationState) == OPEN_OPERATION | {OperationState.SUCCEEDED, OperationState.FAILED}


def test_the_table_cannot_be_changed() -> None:
    """No code adds an edge at run time."""
    with pytest.raises(TypeError):
        TRANSITIONS[Status.FAILED, Status.SUCCEEDED] = None  # type: ignore[index]


def test_every_refusal_is_a_payment_error() -> None:
    """One family, so that no door can forget one of them."""
    for each in (IdempotencyKeyInUse, IdempotencyKeyReused, PaymentConflict, PaymentNotFound):
        assert issubclass(each, PaymentError)
    assert isinstance(IllegalTransition(Status.FAILED, Status.PENDING), PaymentError)
    bad = InvalidCommand("amount", "must be at least 1.00 USD")
    assert isinstance(bad, PaymentError)
    assert (bad.field, str(bad)) == ("amount", "amount: must be at least 1.00 USD")
