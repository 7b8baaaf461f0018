"""Carrying out an operation: who may, when, and that nothing is held open while the gateway is asked."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import psycopg
import pytest

from payment_worker import leases
from payment_worker.processing import MAX_ATTEMPTS
from shared.database import connections_in_use
from shared.gateways import Failed, Succeeded, Transient, Unknown
from shared.payments import OperationKind, OperationState, Status
from shared.settings import Settings
from tests.waiting import LONGEST_S, wait_until
from tests.worker import APPLICATION, Bench, make_bench

SOON_S = 30.0
SHORT_LEASE_S = 0.6


@pytest.fixture
def hasty(settings: Settings) -> Iterator[Bench]:
    """A worker with short leases."""
    with make_bench(settings, lease_s=SHORT_LEASE_S) as bench:
        yield bench


def connections(bench: Bench) -> list[tuple[str, bool]]:
    """The state of each of the worker's connections, and whether a transaction is open on it."""
    query = "SELECT state, xact_start IS NOT NULL FROM pg_stat_activity WHERE application_name = %s"
    with psycopg.connect(bench.settings.database_url) as connection:
        return list(connection.execute(query + " AND datname = current_database()", [APPLICATION]))


def test_a_charge_is_claimed_sent_and_recorded(bench: Bench) -> None:
    """One call under the operation's id, then the money is on the payment, and those who wait are told."""
    operation_id = bench.order(4200)
    outcome = bench.worker.process(operation_id, 0)
    assert isinstance(outcome, Succeeded)
    payment, operation = bench.payment(operation_id), bench.operation(operation_id)
    (charge,) = bench.successes(operation_id)
    assert (payment.status, payment.captured_minor) == (Status.SUCCEEDED, 4200)
    assert payment.transaction_id == charge["id"] == outcome.transaction_id
    assert payment.gateway_ref == operation.gateway_ref == charge["payment_intent"]
    assert payment.processed_at == operation.finished_at is not None
    assert (operation.state, operation.attempt, operation.next_attempt_at) == ("succeeded", 1, None)
    assert bench.gateway.keys == [str(operation_id)]
    assert bench.changed == [payment.id]
    assert bench.events(operation_id) == ["payment requested", "charge sent", "charge succeeded"]
    bench.assert_history_is_whole(operation_id)


def test_nothing_is_held_open_while_the_gateway_is_asked(bench: Bench) -> None:
    """During the call the claim is committed, no transaction is open and no connection is taken."""
    operation_id = bench.order()
    seen: list[tuple[int, list[tuple[str, bool]], OperationState]] = []

    def look() -> None:
        taken = bench.engine.pool.checkedout()  # type: ignore[attr-defined]  # of the pool that engines have
        seen.append((taken, connections(bench), bench.operation(operation_id).state))

    bench.gateway.before.append(look)
    bench.gateway.after.append(look)
    bench.worker.process(operation_id, 0)
    assert seen == [(0, [("idle", False)], OperationState.IN_FLIGHT)] * 2


def test_connections_in_use_are_counted(bench: Bench) -> None:
    """What somebody holds counts until it is given back."""
    with bench.engine.connect():
        assert connections_in_use(bench.engine) == 1
    assert connections_in_use(bench.engine) == 0


def test_messages_that_come_twice_or_late_do_nothing(bench: Bench) -> None:
    """A message names the attempts that its sender knew of; any other number is not its turn."""
    operation_id = bench.order()
    assert bench.worker.process(operation_id, 1) is None
    bench.attempt(operation_id, fault="rate_limit")
    before = bench.events(operation_id)
    assert bench.worker.process(operation_id, 0) is None
    assert bench.events(operation_id) == before
    assert isinstance(bench.worker.process(operation_id, 1), Succeeded)
    for attempt in range(4):
        assert bench.worker.process(operation_id, attempt) is None
    assert len(bench.gateway.keys) == 2
    assert len(bench.successes(operation_id)) == 1
    bench.assert_history_is_whole(operation_id)


def test_an_operation_that_nobody_knows_is_dropped(bench: Bench) -> None:
    """A message about an unknown id asks the gateway nothing and breaks nothing."""
    assert bench.worker.process(uuid.uuid4(), 0) is None
    assert bench.gateway.keys == []


def test_racing_claims_make_one_call(bench: Bench) -> None:
    """Eight workers take the same message at once: one of them charges."""
    operation_id = bench.order()
    start = threading.Barrier(8)

    def take(_turn: int) -> bool:
        start.wait(LONGEST_S)
        return bench.worker.process(operation_id, 0) is not None

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(take, range(8))) == 1
    assert bench.gateway.keys == [str(operation_id)]
    assert len(bench.simulator.charges(operation_id=str(operation_id))) == 1
    bench.assert_history_is_whole(operation_id)


def test_a_running_attempt_keeps_its_lease(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat renews the claim for as long as the call takes: nobody takes over, nothing is due."""
    # Far more often than need be: were the lease itself short, a slow machine would let it lapse.
    monkeypatch.setattr(leases, "RENEWALS_PER_LEASE", 600)
    operation_id = bench.order()
    bench.leases.start()
    seen: list[datetime | None] = []

    def stay_for_some_renewals() -> None:
        def lease_was_renewed() -> bool:
            assert bench.recover() == []
            assert bench.worker.process(operation_id, 1) is None
            seen.append(bench.operation(operation_id).lease_until)
            return len(set(seen)) > 5

        wait_until(lease_was_renewed, SOON_S, "renewals of the lease")

    bench.gateway.after.append(stay_for_some_renewals)
    assert isinstance(bench.worker.process(operation_id, 0), Succeeded)
    assert seen == sorted(each for each in seen if each)
    assert bench.operation(operation_id).lease_until is None
    assert len(bench.gateway.keys) == 1


def test_a_claim_whose_holder_has_died_is_taken_over(hasty: Bench) -> None:
    """Without renewals the lease runs out, recovery hands the work on, and the same key charges once."""
    operation_id = hasty.order()
    taken_over: list[uuid.UUID] = []

    def be_overtaken() -> None:
        taken_over.extend(wait_until(hasty.recover, SOON_S, "the lapsed lease to be found"))

    hasty.gateway.after.append(be_overtaken)  # the first holder hangs with the answer in its hands
    first = hasty.worker.process(operation_id, 0)
    assert taken_over == [operation_id]
    assert hasty.gateway.keys == [str(operation_id)] * 2
    assert len(hasty.simulator.charges(operation_id=str(operation_id))) == 1
    assert isinstance(first, Succeeded)  # heard late; it is the success that is recorded already
    assert hasty.payment(operation_id).status is Status.SUCCEEDED
    assert not hasty.operation(operation_id).needs_review
    assert hasty.events(operation_id) == [
        "payment requested",
        "charge sent",
        "charge sent again",
        "charge succeeded",
    ]
    hasty.assert_history_is_whole(operation_id)


def test_an_overtaken_attempt_that_knows_nothing_changes_nothing(bench: Bench) -> None:
    """Unknown and transient outcomes of a stale holder must not disturb the attempt that runs now."""
    operation_id = bench.order()
    bench.attempt(operation_id, fault="rate_limit")
    stale = bench.claim(operation_id, 1)

    def hear_from_the_stale_holder() -> None:
        before = bench.operation(operation_id)
        for outcome in (Unknown(reason="lost", key_poisoned=True), Transient(reason="busy")):
            bench.worker.record(stale, outcome)
        after = bench.operation(operation_id)
        assert after.lease_until == before.lease_until is not None
        assert (after.attempt, after.doubt_since) == (2, None)

    bench.gateway.before.append(hear_from_the_stale_holder)
    assert isinstance(bench.attempt(operation_id), Succeeded)
    bench.assert_history_is_whole(operation_id)


@pytest.mark.parametrize("fault", ["lost_response", "rate_limit"])
def test_an_overtaken_attempt_may_bring_the_outcome(bench: Bench, fault: str) -> None:
    """What a stale holder knows for certain is recorded while the operation is open, and only once."""
    operation_id = bench.order()
    bench.attempt(operation_id, fault=fault)
    stale = bench.claim(operation_id, 1)

    def hear_from_the_stale_holder() -> None:
        outcome = bench.gateway.inner.send(
            OperationKind.CHARGE, stale.operation.request or {}, stale.operation.gateway_key
        )
        bench.worker.record(stale, outcome)
        assert bench.payment(operation_id).status is Status.SUCCEEDED

    bench.gateway.before.append(hear_from_the_stale_holder)
    assert isinstance(bench.attempt(operation_id), Succeeded)
    assert bench.events(operation_id)[-1] == "charge succeeded"
    assert bench.events(operation_id).count("charge succeeded") == 1
    assert len(bench.successes(operation_id)) == 1
    bench.assert_history_is_whole(operation_id)


def test_a_failure_heard_after_a_success_changes_nothing(bench: Bench) -> None:
    """A settled payment never becomes unsettled by a late message."""
    operation_id = bench.order()
    bench.attempt(operation_id)
    before = bench.timeline(operation_id)
    late = Failed(error_code="CARD_DECLINED", message="No", reason="card_declined")
    bench.worker.record(bench.claim(operation_id, 1), late)
    assert [entry.sequence for entry in bench.timeline(operation_id)] == [each.sequence for each in before]
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    assert not bench.operation(operation_id).needs_review


@pytest.mark.parametrize("first_fails", [True, False])
def test_a_second_success_is_flagged(bench: Bench, *, first_fails: bool) -> None:
    """Money taken beyond the recorded outcome is for an operator: noted once, the payment as it was."""
    operation_id = bench.order(1013 if first_fails else 2500)
    bench.attempt(operation_id)
    claim = bench.claim(operation_id, 1)
    status = bench.payment(operation_id).status
    request = {**(claim.operation.request or {}), "amount": 2500}
    second = bench.gateway.inner.send(OperationKind.CHARGE, request, f"{claim.operation.gateway_key}:other")
    assert isinstance(second, Succeeded)
    bench.worker.record(claim, second)
    assert bench.operation(operation_id).needs_review
    assert bench.payment(operation_id).status is status
    (note,) = [entry for entry in bench.timeline(operation_id) if entry.event == "needs review"]
    assert note.gateway_ref == second.gateway_ref
    bench.assert_history_is_whole(operation_id)


def test_attempts_are_limited(bench: Bench) -> None:
    """A crash loop or an outcome that never comes ends with an operator, not with yet another call."""
    operation_id = bench.order()
    bench.change(operation_id, attempt=MAX_ATTEMPTS)
    assert bench.worker.process(operation_id, MAX_ATTEMPTS) is None
    operation = bench.operation(operation_id)
    assert bench.gateway.keys == []
    assert operation.needs_review
    assert operation.next_attempt_at is None
    assert bench.recover() == []
    assert bench.events(operation_id)[-1] == "needs review"
    bench.assert_history_is_whole(operation_id)


def test_the_request_is_frozen_at_the_first_attempt(bench: Bench) -> None:
    """Later attempts send exactly what the first sent, or the key would be refused as used for another."""
    operation_id = bench.order()
    bench.attempt(operation_id, fault="lost_response")
    frozen = bench.operation(operation_id).request
    with psycopg.connect(bench.settings.database_url) as connection:
        connection.execute("UPDATE payment SET payment_method_id = 'pm_card_mastercard'")
    assert isinstance(bench.attempt(operation_id), Succeeded)
    assert bench.operation(operation_id).request == frozen
    assert len(bench.simulator.charges(operation_id=str(operation_id))) == 1


def test_an_outcome_outlives_connections_that_break_in_the_middle(bench: Bench) -> None:
    """The answer is in hand only once: it is recorded whole, history and event too, on a new connection."""
    operation_id = bench.order()

    def break_the_connections() -> None:
        cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s"
        with psycopg.connect(bench.settings.database_url) as connection:
            assert connection.execute(cut + " AND datname = current_database()", [APPLICATION]).fetchall()

    bench.gateway.after.append(break_the_connections)
    assert isinstance(bench.attempt(operation_id), Succeeded)
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    assert bench.events(operation_id) == ["payment requested", "charge sent", "charge succeeded"]
    assert [row.type for row in bench.outbox()] == ["payment-requested", "payment-succeeded"]
    bench.assert_history_is_whole(operation_id)
