"""The gateway's books are compared with ours row by row, both ways; each kind of break is found and told."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from payment_worker.figures import Figures
from payment_worker.reconciling import pages, runs
from payment_worker.reconciling.pages import CLOCK_MARGIN
from shared.database import connections_in_use
from shared.gateways import GatewayUnavailable
from shared.gateways.ledger import Entry, Page, Thing
from shared.models import Payment
from shared.payments import OperationState
from shared.wakeup import connect_redis
from tests.books import HOUR, Books
from tests.life import cancel, capture, hold, operation_of, refund
from tests.simulator import Simulator
from tests.stripe_process import Running

WHOLE_MINOR, PART_MINOR = 10_000, 4_000
INTENT, CHARGE, REFUND = "payment_intent", "charge", "refund"


def every_state(books: Books) -> dict[str, uuid.UUID]:
    """Payments as they come to rest, each of them as both sides agree on."""
    made = {
        "paid": books.order(WHOLE_MINOR),
        "declined": books.order(1013),
        "refunded": books.order(WHOLE_MINOR),
    }
    for each in made.values():
        books.attempt(each)
    for amount_minor in (PART_MINOR, 1_000):
        books.attempt(refund(books, made["refunded"], amount_minor).id)
    held, captured, released = hold(books), hold(books), hold(books)
    books.attempt(capture(books, captured, PART_MINOR).id)
    books.attempt(refund(books, captured, 1_000).id)
    books.attempt(operation_of(cancel(books, released)).id)
    kept = books.order(WHOLE_MINOR, payment_method_id="pm_card_authenticationRequired")
    books.attempt(kept)
    return {**made, "held": held, "captured": captured, "released": released, "waits": kept}


def test_books_that_agree_have_no_break(books: Books) -> None:
    """Paid, declined, refunded in parts, held, captured in part, released and waiting: none is a break.

    Everything was compared from both sides, and what was seen is not kept.
    """
    every_state(books)
    lost_key = books.order()
    books.attempt(lost_key, fault="lost_response")  # in flight here
    run = books.begin()
    pages.carry_on(books.desk, run)
    assert books.open() == []
    charges, refunds = books.simulator.charges(), books.simulator.refunds()
    assert (run.counts["charges"], run.counts["refunds"]) == (len(charges), len(refunds))
    assert (run.counts["intents"], run.counts["ours"]) == (8, 8 + 3)
    assert run.finished_at is not None
    assert books.stored.rows("reconciliation_seen") == []


def test_what_is_missing_here_is_found(books: Books) -> None:
    """Made at Stripe by another hand, or lost here: PaymentIntent, charge and refund, each with its ids."""
    (made,) = books.simulator.act(
        "seed", charges=[{"amount": 900, "currency": "usd", "created": now_s(), "refund": 300}]
    )["made"]
    operation_id = books.order()
    payment_id = books.payment(operation_id).id
    books.attempt(operation_id)
    lose(books, payment_id)
    found = books.compare()
    assert {each.kind for each in found} == {"missing_here"}
    by_payment = {each.ref: each.payment_id for each in found}
    assert by_payment == {
        **dict.fromkeys(made.values()),
        **dict.fromkeys((each.ref for each in found if each.payment_id), payment_id),
    }
    assert len(found) == 3 + 2
    foreign = next(each for each in found if each.ref == made["charge"])
    assert "somebody else" in foreign.reason
    assert (foreign.ours, (foreign.theirs or {})["amount_minor"]) == (None, 900)


def test_what_is_missing_there_is_found(books: Books, gateway: Running) -> None:
    """Rows whose objects Stripe does not have: another account, or a simulator that has lost its state."""
    operation_id = books.order(WHOLE_MINOR)
    books.attempt(operation_id)
    books.attempt(refund(books, operation_id, PART_MINOR).id)
    waits = books.order()
    forget(gateway)
    found = books.compare()
    assert books.kinds(found) == {(each, "missing_there") for each in (INTENT, CHARGE, REFUND)}
    payment = books.payment(operation_id)
    assert {each.payment_id for each in found} == {payment.id}
    assert {payment.gateway_ref, payment.transaction_id} < {each.ref for each in found}
    assert books.operation(waits).state is OperationState.REQUESTED
    assert all(each.theirs is None and each.ours for each in found)


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("amount_minor", WHOLE_MINOR + 1, {(INTENT, "amount")}),
        ("captured_minor", PART_MINOR, {(INTENT, "amount"), (CHARGE, "amount")}),
        ("refunded_minor", 1, {(CHARGE, "amount")}),
        ("currency", "EUR", {(INTENT, "currency"), (CHARGE, "currency")}),
        ("transaction_id", "ch_other", {(CHARGE, "duplicate"), (CHARGE, "missing_there")}),
    ],
)
def test_a_difference_is_told_with_both_sides(
    books: Books, column: str, value: Any, wanted: set[tuple[str, str]]
) -> None:
    """Amount, currency, sums, and a second charge; the evidence holds what both sides said."""
    operation_id = books.order(WHOLE_MINOR)
    books.attempt(operation_id)
    with books.sessions.begin() as session:
        session.execute(update(Payment).values({column: value}))
    found = books.compare()
    assert books.kinds(found) == wanted
    for each in found:
        assert (each.ours or {})["payment"][column] == value
        if each.theirs:
            assert each.theirs["amount_minor"] == WHOLE_MINOR
    assert books.kinds(books.compare()) == wanted
    assert len(books.stored.rows("reconciliation_break")) == len(found)


@pytest.mark.parametrize("amount_minor", [PART_MINOR, 1])
def test_a_refund_of_another_amount_is_found(books: Books, amount_minor: int) -> None:
    """It is the refund's own break, whatever the sums say."""
    operation_id = books.order(WHOLE_MINOR)
    books.attempt(operation_id)
    given = refund(books, operation_id, 1_000)
    books.attempt(given.id)
    books.change(given.id, amount_minor=amount_minor)
    assert books.kinds(books.compare()) == {(REFUND, "amount")}


def test_a_status_that_differs_is_found(books: Books) -> None:
    """Captured, cancelled and refunded at the dashboard, and no webhook has told."""
    captured, cancelled, failed = hold(books), hold(books), books.order(WHOLE_MINOR)
    books.attempt(failed)
    given = refund(books, failed, PART_MINOR)
    books.attempt(given.id)
    for what, operation_id in (("capture", captured), ("cancel", cancelled)):
        books.simulator.act(f"dashboard/{what}", payment_intent=books.payment(operation_id).gateway_ref)
    books.simulator.act("refund", refund=books.operation(given.id).gateway_ref, status="failed")
    found = books.compare()
    told = {(each.object, each.kind, each.payment_id) for each in found}
    assert told == {
        (INTENT, "status", books.payment(captured).id),
        (CHARGE, "status", books.payment(captured).id),
        (INTENT, "status", books.payment(cancelled).id),
        (REFUND, "status", books.payment(failed).id),
        (CHARGE, "amount", books.payment(failed).id),
    }
    assert "succeeded there, authorized here" in {each.reason for each in found}


def test_two_successful_charges_for_one_payment_are_a_duplicate(books: Books) -> None:
    """The second one is told, for as long as it bears money."""
    operation_id = books.order(WHOLE_MINOR)
    books.attempt(operation_id)
    first = books.payment(operation_id).transaction_id
    charge_again(books, operation_id)
    (found,) = books.compare()
    assert (found.object, found.kind) == (CHARGE, "duplicate")
    assert (found.ref != first, str(first) in found.reason) == (True, True)
    books.simulator.act("dashboard/refund", payment_intent=(found.theirs or {})["intent_ref"])
    assert books.kinds(books.compare()) == {(REFUND, "missing_here")}
    (first_seen,) = [row for row in books.stored.rows("reconciliation_break") if row["kind"] == "duplicate"]
    assert first_seen["resolved_at"] is not None


def test_what_nothing_carries_on_with_is_found(books: Books) -> None:
    """An operation that is open and neither due nor in doubt would wait for ever."""
    operation_id = books.order()
    books.change(operation_id, next_attempt_at=None)
    (found,) = books.compare()
    assert (found.object, found.ref, found.kind) == ("operation", str(operation_id), "status")


def test_what_is_young_or_on_its_way_is_no_break(books: Books) -> None:
    """Neither what the margin leaves out, nor what a worker is asking for at this moment."""
    operation_id = books.order()
    books.attempt(operation_id, fault="lost_response")
    assert books.compare() == []  # due again: it asks under the same key
    books.change(operation_id, next_attempt_at=None, lease_until=timedelta(minutes=1))
    assert books.compare() == []
    books.change(operation_id, lease_until=None)
    now = datetime.now(UTC)
    young = runs.begin(books.sessions, now - HOUR, None, CLOCK_MARGIN * 3, actor="test")
    pages.carry_on(books.desk, young)
    assert books.open() == []
    assert books.kinds(books.compare()) >= {(INTENT, "status")}


def test_a_later_run_that_finds_it_right_resolves_a_break(books: Books) -> None:
    """Also one whose window is another; first and last seen and both runs stay with it."""
    operation_id = books.order()
    books.attempt(operation_id)
    books.stored.change("UPDATE payment SET currency = 'EUR'")
    first, again = books.compare(), books.compare()
    assert [each.id for each in again] == [each.id for each in first]
    assert all(each.last_seen > each.first_seen and each.run_id != each.last_run_id for each in again)
    books.stored.change("UPDATE payment SET currency = 'USD'")
    assert books.compare(ago=48 * HOUR, until_ago=24 * HOUR) == []
    rows = books.stored.rows("reconciliation_break")
    assert len(rows) == 2
    assert all(row["resolved_at"] and "found right by run" in row["resolution"] for row in rows)


def test_open_breaks_and_the_last_run_are_figures(books: Books) -> None:
    """By kind, and 0 where there are none; the time of the last run that came to its end."""

    def shown() -> dict[str, Any]:
        figures = Figures(books.sessions, connect_redis(books.settings.redis_url)).collect()
        samples = [each for family in figures for each in family.samples]
        return {f"{each.name} {each.labels.get('kind', '')}".strip(): each.value for each in samples}

    finished = "payment_reconciliation_last_success_timestamp_seconds"
    assert shown()[finished] == 0
    operation_id = books.order()
    books.attempt(operation_id)
    books.stored.change("UPDATE payment SET currency = 'EUR'")
    began = datetime.now(UTC)
    books.compare()
    figures = shown()
    assert figures["payment_reconciliation_open_breaks currency"] == 2
    assert figures["payment_reconciliation_open_breaks duplicate"] == 0
    assert abs(figures[finished] - began.timestamp()) < HOUR.total_seconds()
    assert figures["payment_restored"] == 0


def test_two_that_carry_on_one_run_do_not_both(books: Books) -> None:
    """The one that comes second with a page stops; the other's findings stand, once."""
    operation_id = books.order()
    books.attempt(operation_id)
    books.stored.change("UPDATE payment SET currency = 'EUR'")
    run = books.begin()
    other = runs.unfinished(books.sessions, run.since, None, applies=False)
    assert other is not None
    pages.carry_on(books.desk, run)
    with pytest.raises(runs.Overtaken):
        pages.carry_on(books.desk, other)
    assert len(books.open()) == 2


def test_no_connection_is_held_while_stripe_is_asked(books: Books) -> None:
    """Neither in the listing nor in a look at one object; and a gateway that is away ends the run undone."""
    operation_id = books.order()
    books.attempt(operation_id)
    books.stored.change("UPDATE payment SET currency = 'EUR'")
    held: list[int] = []
    ledger = books.desk.ledger
    inner_page, inner_entry = ledger.page, ledger.entry

    def page(thing: Thing, since: datetime, until: datetime, after: str | None) -> Page:
        held.append(connections_in_use(books.engine))
        return inner_page(thing, since, until, after)

    def entry(thing: Thing, ref: str) -> Entry | None:
        held.append(connections_in_use(books.engine))
        return inner_entry(thing, ref)

    ledger.page, ledger.entry = page, entry  # type: ignore[method-assign]
    assert len(books.compare()) == 2
    assert held == [0] * len(held)
    assert len(held) >= 3 + 2
    books.simulator.fault("unavailable", times=None, reads=True)
    run = books.begin()
    with pytest.raises(GatewayUnavailable):
        pages.carry_on(books.desk, run)
    assert (run.finished_at, run.phase) == (None, runs.INTENTS)


def now_s() -> int:
    """The time in whole seconds, as Stripe has it."""
    return int(datetime.now(UTC).timestamp())


def lose(books: Books, payment_id: uuid.UUID) -> None:
    """Lose a payment's rows."""
    books.stored.change("DELETE FROM timeline_entry WHERE payment_id = %s", payment_id)
    books.stored.change("DELETE FROM operation WHERE payment_id = %s", payment_id)
    books.stored.change("DELETE FROM payment WHERE id = %s", payment_id)


def forget(gateway: Running) -> None:
    """Let the gateway have nothing."""
    Simulator(gateway.url)._call("DELETE", "objects")


def charge_again(books: Books, operation_id: uuid.UUID) -> None:
    """Let the gateway carry a charge out a second time, behind our back."""
    operation = books.operation(operation_id)
    books.gateway.inner.send(operation.kind, operation.request or {}, f"{operation_id}:2")
