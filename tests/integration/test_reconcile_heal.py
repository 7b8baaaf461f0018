"""What a reconciliation repairs by itself, through the door that webhooks take; and what it leaves alone."""

import uuid
from collections.abc import Callable

import pytest

from payment_worker.processing import MAX_ATTEMPTS
from payment_worker.reconciling import pages
from payment_worker.reconciling.desk import Desk
from payment_worker.reconciling.runs import Run
from shared.payments import OperationKind, Status
from tests.books import Books
from tests.life import hold, refund

WHOLE_MINOR, PART_MINOR, DECLINED_MINOR = 10_000, 4_000, 1_013


def paid(books: Books) -> uuid.UUID:
    """A payment that both sides agree on."""
    operation_id = books.order(WHOLE_MINOR)
    books.attempt(operation_id)
    return operation_id


def dashboard(books: Books, what: str, operation_id: uuid.UUID, **told: int) -> None:
    """Let someone act at the gateway's dashboard; no webhook tells."""
    books.simulator.act(f"dashboard/{what}", payment_intent=books.payment(operation_id).gateway_ref, **told)


def lost_answer(books: Books, amount_minor: int = WHOLE_MINOR) -> uuid.UUID:
    """A charge that was carried out, whose answer was lost, and that was given up."""
    operation_id = books.order(amount_minor)
    books.attempt(operation_id, fault="lost_response")
    books.change(operation_id, attempt=MAX_ATTEMPTS)
    assert books.attempt(operation_id) is None
    return operation_id


def lost_refund_answer(books: Books) -> uuid.UUID:
    """A refund that was carried out, whose answer was lost, and that was given up."""
    given = refund(books, paid(books), PART_MINOR)
    books.simulator.fault("lost_response", payment_id=str(given.payment_id))
    books.attempt(given.id)
    books.change(given.id, next_attempt_at=None, needs_review=True)
    return given.id


def captured_elsewhere(books: Books) -> uuid.UUID:
    """A hold that was captured at the dashboard."""
    operation_id = hold(books, WHOLE_MINOR)
    dashboard(books, "capture", operation_id)
    return operation_id


def cancelled_elsewhere(books: Books) -> uuid.UUID:
    """A hold that was let go of at the dashboard."""
    operation_id = hold(books, WHOLE_MINOR)
    dashboard(books, "cancel", operation_id)
    return operation_id


def refunded_elsewhere(books: Books) -> uuid.UUID:
    """A payment of which a part was given back at the dashboard."""
    operation_id = paid(books)
    dashboard(books, "refund", operation_id, amount=PART_MINOR)
    return operation_id


@pytest.mark.parametrize(
    ("trouble", "status", "refunded_minor"),
    [
        (lost_answer, Status.SUCCEEDED, 0),
        (lambda books: lost_answer(books, DECLINED_MINOR), Status.FAILED, 0),
        (lost_refund_answer, Status.PARTIALLY_REFUNDED, PART_MINOR),
        (captured_elsewhere, Status.SUCCEEDED, 0),
        (cancelled_elsewhere, Status.CANCELLED, 0),
        (refunded_elsewhere, Status.PARTIALLY_REFUNDED, PART_MINOR),
    ],
)
def test_what_the_gateway_has_is_adopted_when_told_to(
    books: Books, trouble: Callable[[Books], uuid.UUID], status: Status, refunded_minor: int
) -> None:
    """First it is only proposed and nothing changes; then it is recorded, announced, and nothing is sent."""
    operation_id = trouble(books)
    before, keys = books.events(operation_id), list(books.gateway.keys)
    proposed = books.compare(heals=True)
    assert proposed
    assert all(each.repair and "record" in each.repair for each in proposed), [
        each.repair for each in proposed
    ]
    assert books.events(operation_id) == before
    assert books.heal() == []
    payment = books.payment(operation_id)
    assert (payment.status, payment.refunded_minor) == (status, refunded_minor)
    assert payment.refund_reserved_minor == 0
    assert books.timeline(operation_id)[-1].actor == "reconciliation"
    assert books.gateway.keys == keys
    books.assert_history_is_whole(operation_id)
    rows = books.stored.rows("reconciliation_break")
    assert all("repaired by run" in row["resolution"] for row in rows if row["id"] == proposed[0].id)
    assert books.compare() == []


def test_a_second_charge_goes_back_and_a_person_sees_it(books: Books) -> None:
    """It is refunded as soon as it is found, once; until that is done it is on its way and no break."""
    operation_id = paid(books)
    operation = books.operation(operation_id)
    books.gateway.inner.send(operation.kind, operation.request or {}, f"{operation_id}:2")
    assert books.heal() == []
    assert books.operation(operation_id).needs_review
    assert books.heal() == []
    (given,) = [row for row in books.stored.rows("operation") if row["kind"] == "refund"]
    books.attempt(given["id"])
    assert books.compare() == []
    charges = books.simulator.charges(operation_id=str(operation_id))
    assert sorted(each["amount_refunded"] for each in charges) == [0, WHOLE_MINOR]
    assert books.payment(operation_id).status is Status.SUCCEEDED


def test_what_was_lost_on_its_way_is_dispatched_again(books: Books) -> None:
    """Nothing carries on with it, so it becomes due; what was given up is a person's, and no break."""
    operation_id = books.order(WHOLE_MINOR)
    books.change(operation_id, next_attempt_at=None)
    given_up = books.order(WHOLE_MINOR)
    books.change(given_up, next_attempt_at=None, needs_review=True)
    assert [each.ref for each in books.compare()] == [str(operation_id)]
    assert books.heal() == []
    assert books.recover() == [operation_id]
    assert books.payment(operation_id).status is Status.SUCCEEDED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE payment SET captured_minor = 4000", "not corrected by itself"),
        ("UPDATE payment SET currency = 'EUR'", "currency"),
        ("UPDATE payment SET amount_minor = 10001", "not corrected by itself"),
    ],
)
def test_what_is_not_safe_stays_a_break_with_the_reason(books: Books, change: str, why: str) -> None:
    """No amount and no currency is written over, on either side."""
    operation_id = paid(books)
    books.stored.change(change)
    before = books.stored.rows("payment")
    found = books.heal()
    assert found
    assert all(why in str(each.repair) for each in found)
    assert books.stored.rows("payment") == before
    assert len(books.simulator.charges(operation_id=str(operation_id))) == 1


def test_what_others_have_made_is_left_to_them(books: Books) -> None:
    """A charge without our ids is told, and no row is made up for it."""
    theirs = {"amount": 700, "currency": "usd", "confirm": True, "payment_method": "pm_card_visa"}
    request = {**theirs, "payment_method_types": ["card"], "metadata": {"theirs": "1"}}
    request["expand"] = ["latest_charge"]
    books.gateway.inner.send(OperationKind.CHARGE, request, str(uuid.uuid4()))
    found = books.heal()
    assert {each.kind for each in found} == {"missing_here"}
    assert all("nothing can be rebuilt" in str(each.repair) for each in found)
    assert books.stored.rows("payment") == []


def test_a_settled_payment_is_not_moved_back(books: Books) -> None:
    """Where our row says paid and the gateway cancelled, a person has to find out why."""
    operation_id = cancelled_elsewhere(books)
    values = "status = 'succeeded', captured_minor = amount_minor, processed_at = now()"
    books.stored.change(f"UPDATE payment SET {values}")  # noqa: S608 - fixed words only
    before = books.events(operation_id)
    found = books.heal()
    assert ("payment_intent", "status") in books.kinds(found)
    assert books.events(operation_id) == before
    assert books.payment(operation_id).status is Status.SUCCEEDED


def test_an_interrupted_repair_is_made_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies after a repair and before it is noted: the run goes on, and finds it done."""
    operation_id = captured_elsewhere(books)
    run = books.begin(heals=True, applies=True)
    write = pages._write

    def die(desk: Desk, run: Run, step: pages.Step) -> None:
        if step.repaired:
            raise KeyboardInterrupt
        write(desk, run, step)

    monkeypatch.setattr(pages, "_write", die)
    with pytest.raises(KeyboardInterrupt):
        pages.carry_on(books.desk, run)
    monkeypatch.undo()
    assert books.payment(operation_id).status is Status.SUCCEEDED
    events = books.events(operation_id)
    pages.carry_on(books.desk, run)
    assert books.open() == []
    assert books.events(operation_id) == events
    books.assert_history_is_whole(operation_id)
