"""The recovery sweep finds exactly what was lost, and never adds to a backlog."""

import uuid
from datetime import timedelta

import pytest
from kombu.exceptions import OperationalError

from payment_worker import queues, recovery
from payment_worker.recovery import (
    BACKLOG_DEPTH,
    LAST_REDISPATCH_S,
    MAX_QUEUE_DEPTH,
    NEVER_CAME,
    Due,
    sweep,
    take_due,
)
from shared.database import try_lock
from shared.gateways import GatewayUnavailable
from shared.payments import OperationKind, Status
from shared.settings import Settings
from tests.worker import NOT_DUE_S, Bench

FIRST_REDISPATCH_S = 5


def test_a_request_whose_message_was_lost_is_found(bench: Bench) -> None:
    """The message is given a while; then recovery sends the operation with all that a task needs."""
    fresh = bench.order()
    lost = bench.order(recovery_after_s=0, correlation_id="trace me")
    assert take_due(bench.sessions) == [Due(lost, 0, "trace me", OperationKind.CHARGE)]
    assert bench.operation(fresh).dispatch_count == 0


def test_every_dispatch_pushes_the_next_one_out(bench: Bench) -> None:
    """A backlog is not dispatched over and over: the pause doubles up to five minutes."""
    operation_id = bench.order()
    for pause_s in (FIRST_REDISPATCH_S, 10, 20, 40, 80, 160, 300, 300):
        bench.make_due(operation_id)
        with bench.pausing(operation_id, pause_s):
            assert len(take_due(bench.sessions)) == 1
    assert take_due(bench.sessions) == []


def test_a_claim_ends_the_backoff(bench: Bench) -> None:
    """Once somebody has taken the operation, what is lost next is found quickly again."""
    operation_id = bench.order()
    bench.change(operation_id, dispatch_count=6)
    bench.attempt(operation_id, fault="rate_limit")
    bench.make_due(operation_id)
    with bench.pausing(operation_id, FIRST_REDISPATCH_S):
        take_due(bench.sessions)


def test_an_operation_that_nobody_takes_for_days_does_not_stop_the_sweep(bench: Bench) -> None:
    """Thousands of dispatches in vain still give a pause, and the others are dispatched."""
    forgotten, other = bench.order(), bench.order()
    bench.change(forgotten, dispatch_count=5_000, next_attempt_at=timedelta())
    bench.make_due(other)
    with bench.pausing(forgotten, LAST_REDISPATCH_S):
        assert {each.operation_id for each in take_due(bench.sessions)} == {forgotten, other}


def test_a_lease_that_lives_is_respected(bench: Bench) -> None:
    """Due or not, what somebody holds is left alone until the lease has lapsed."""
    operation_id = bench.order()
    bench.change(operation_id, next_attempt_at=timedelta(), lease_until=timedelta(seconds=NOT_DUE_S))
    assert take_due(bench.sessions) == []
    bench.change(operation_id, lease_until=timedelta(seconds=-1))
    assert [each.operation_id for each in take_due(bench.sessions)] == [operation_id]


def test_what_is_finished_is_never_dispatched(bench: Bench) -> None:
    """Neither a success nor a decline is due ever again, also when its message is still on its way."""
    finished = [bench.order(recovery_after_s=0), bench.order(1013, recovery_after_s=0)]
    dispatched = take_due(bench.sessions)
    for _ in range(2):
        for each in dispatched:
            bench.worker.process(each.operation_id, each.attempt)
    assert [bench.payment(each).status for each in finished] == [Status.SUCCEEDED, Status.FAILED]
    assert [bench.operation(each).next_attempt_at for each in finished] == [None, None]
    assert take_due(bench.sessions) == []
    assert len(bench.gateway.keys) == 2


def test_the_sweep_waits_while_the_queue_is_deep(bench: Bench) -> None:
    """What is due is most likely in the queue already; when it has drained, the sweep goes on."""
    operation_id = bench.order(recovery_after_s=0)
    sent: list[Due] = []
    assert sweep(bench.sessions, lambda: MAX_QUEUE_DEPTH + 1, sent.extend) == 0
    assert sent == []
    assert bench.operation(operation_id).dispatch_count == 0
    assert sweep(bench.sessions, lambda: 0, sent.extend) == 1
    assert sent == [Due(operation_id, 0, None, OperationKind.CHARGE)]


def test_in_a_backlog_only_what_was_attempted_or_never_came_is_sent_again(bench: Bench) -> None:
    """What was never attempted has a message in the queue; a lapsed lease has none, nor has what is late."""
    waits, lapsed, lost = (bench.order(recovery_after_s=0) for _ in range(3))
    bench.change(lapsed, attempt=1)
    bench.change(lost, next_attempt_at=-NEVER_CAME)
    sent: list[Due] = []
    assert sweep(bench.sessions, lambda: BACKLOG_DEPTH + 1, sent.extend) == 2
    assert {each.operation_id for each in sent} == {lapsed, lost}
    assert bench.operation(waits).dispatch_count == 0
    sent.clear()
    assert sweep(bench.sessions, lambda: BACKLOG_DEPTH, sent.extend) == 1
    assert [each.operation_id for each in sent] == [waits]


def test_only_one_sweep_at_a_time(bench: Bench) -> None:
    """Two schedulers do no harm: the second sweep leaves everything to the first."""
    bench.order(recovery_after_s=0)
    with bench.sessions.begin() as other_sweep:
        assert try_lock(other_sweep, "recovery sweep")
        assert take_due(bench.sessions) == []
    assert len(take_due(bench.sessions)) == 1


def test_a_sweep_takes_a_bounded_batch_oldest_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is due, one turn stays small; the rest is found by the next."""
    monkeypatch.setattr(recovery, "BATCH", 3)
    operations = [bench.order() for _ in range(5)]
    for age_s, operation_id in enumerate(reversed(operations)):
        bench.change(operation_id, next_attempt_at=timedelta(seconds=-age_s - 1))
    assert {each.operation_id for each in take_due(bench.sessions)} == set(operations[:3])
    assert {each.operation_id for each in take_due(bench.sessions)} == set(operations[3:])


def test_a_dispatch_that_fails_loses_nothing(bench: Bench) -> None:
    """Redis is away: the operation stays in the database and has its next turn."""
    operation_id = bench.order(recovery_after_s=0)

    def fail(_due: list[Due]) -> None:
        raise OperationalError("Redis is away")

    with bench.pausing(operation_id, FIRST_REDISPATCH_S), pytest.raises(OperationalError):
        sweep(bench.sessions, lambda: 0, fail)
    bench.make_due(operation_id)
    assert bench.recover() == [operation_id]
    assert bench.payment(operation_id).status is Status.SUCCEEDED


@pytest.mark.parametrize("name", [queues.RECOVER, queues.VERIFY])
def test_a_turn_that_nobody_took_in_time_expires(settings: Settings, name: str) -> None:
    """While no worker runs, the scheduler's turns do not pile up."""
    entry = queues.make_celery(settings).conf.beat_schedule[name]
    every_s = entry["schedule"].total_seconds()
    assert every_s <= entry["options"]["expires"] <= 5 * every_s
    assert entry["options"]["queue"] == queues.RECOVERY_QUEUE


def test_a_doubt_that_lasts_is_shown_to_an_operator(bench: Bench) -> None:
    """When the looks themselves fail, somebody has to know; once the charge is found the flag goes."""
    operation_id = bench.order()
    bench.attempt(operation_id, fault="error_after")
    bench.make_due(operation_id)
    bench.recover()
    assert bench.operation(operation_id).doubt_since is not None
    bench.change(operation_id, doubt_since=-timedelta(hours=2))
    bench.gateway.inner = bench.stripe(url="http://127.0.0.1:9")
    with pytest.raises(GatewayUnavailable):
        bench.verify()
    assert bench.operation(operation_id).needs_review
    assert bench.events(operation_id)[-1] == "needs review"
    with pytest.raises(GatewayUnavailable):
        bench.verify()
    assert bench.events(operation_id).count("needs review") == 1

    bench.gateway.inner = bench.stripe()
    assert bench.verify() == 1
    assert not bench.operation(operation_id).needs_review
    bench.assert_history_is_whole(operation_id)


def in_doubt(bench: Bench, fault: str) -> uuid.UUID:
    """Return a charge whose key replays a 500."""
    operation_id = bench.order()
    bench.attempt(operation_id, fault=fault)
    bench.attempt(operation_id)
    assert bench.operation(operation_id).doubt_since is not None
    return operation_id


def test_what_is_being_looked_for_is_not_looked_for_twice(bench: Bench) -> None:
    """Two processes that look at the same time share the work; neither holds a connection while it looks."""
    first = in_doubt(bench, "error_after")
    during: list[int] = []

    def look_again() -> None:
        assert bench.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        during.append(bench.verify())

    bench.gateway.before_find.append(look_again)
    assert bench.verify() == 1
    assert (during, bench.gateway.finds) == ([0], 1)
    assert bench.payment(first).status is Status.SUCCEEDED


def test_a_look_that_failed_is_made_again_at_once(bench: Bench) -> None:
    """Its lease ends with it; that of a process that died in the middle lapses."""
    operation_id = in_doubt(bench, "error_after")
    reachable, bench.gateway.inner = bench.gateway.inner, bench.stripe(url="http://127.0.0.1:9")
    with pytest.raises(GatewayUnavailable):
        bench.verify()
    assert bench.operation(operation_id).lease_until is None
    bench.gateway.inner = reachable
    bench.change(operation_id, lease_until=timedelta(seconds=60))
    assert bench.verify() == 0
    bench.change(operation_id, lease_until=timedelta(seconds=-1))
    assert bench.verify() == 1


def test_a_look_that_began_too_early_is_no_second_look(bench: Bench) -> None:
    """However long a look takes: what counts is that it began well after the first had ended."""
    operation_id = in_doubt(bench, "error_before")
    bench.verify()
    bench.change(operation_id, absent_since=None)

    def other_looks_first() -> None:
        # Its lease has lapsed, and another process has found nothing since this look began.
        bench.change(operation_id, absent_since=timedelta())

    bench.gateway.before_find.append(other_looks_first)
    bench.verify(verify_absence_s=0)
    assert bench.operation(operation_id).key_number == 1
    bench.verify(verify_absence_s=0)
    assert bench.operation(operation_id).key_number == 2
