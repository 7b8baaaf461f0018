"""How many calls a budget allows, and who goes first when there are few left."""

from itertools import takewhile

import pytest

from payment_worker.budget import Budget, LocalBucket, Priority, capacity_of, least, priority_of
from shared.payments import OperationKind
from shared.wakeup import connect_redis
from tests.clock import Clock

RATE = 16.0


def full_bucket(rate: float) -> tuple[Clock, LocalBucket]:
    """Return a bucket that has had time to fill, and its clock."""
    clock = Clock()
    bucket = LocalBucket(rate, clock)
    clock.move(3600)
    return clock, bucket


def drain(bucket: LocalBucket, priority: Priority) -> int:
    """Take as many tokens as this priority may; return how many."""
    return sum(1 for _ in takewhile(lambda _: bucket.take(priority).granted, range(100_000)))


def test_polls_leave_tokens_to_charges_and_charges_to_captures() -> None:
    """Polls may take the upper half, charges all but the last fifth, captures all."""
    _, bucket = full_bucket(RATE)
    assert drain(bucket, Priority.POLL) == 9
    assert not bucket.take(Priority.POLL).granted
    assert drain(bucket, Priority.CHARGE) == 4
    assert not bucket.take(Priority.CHARGE).granted
    assert drain(bucket, Priority.CAPTURE) == 3


@pytest.mark.parametrize("rate", [0.25, 1.0, 3.0, 25.0, 1000.0])
@pytest.mark.parametrize("priority", list(Priority))
def test_an_idle_budget_lets_everybody_through(rate: float, priority: Priority) -> None:
    """However small the rate, no priority is shut out for good."""
    assert least(priority, rate) <= capacity_of(rate)
    assert full_bucket(rate)[1].take(priority).granted


@pytest.mark.parametrize("rate", [0.25, 5.0, 25.0])
def test_a_bucket_gives_a_second_and_the_rate(rate: float) -> None:
    """Within any time no more than the capacity and the rate's worth of that time, and no less."""
    clock, bucket = full_bucket(rate)
    taken = 0
    for _ in range(4000):
        clock.move(0.01)
        taken += drain(bucket, Priority.CAPTURE)
    assert taken == pytest.approx(capacity_of(rate) + rate * 40, abs=1)


def test_a_local_bucket_starts_empty() -> None:
    """The account's tokens may just have been spent: the first comes after its time."""
    clock = Clock()
    bucket = LocalBucket(RATE, clock)
    assert not bucket.take(Priority.CAPTURE).granted
    clock.move(1 / RATE)
    assert bucket.take(Priority.CAPTURE).granted


@pytest.mark.parametrize(
    ("kind", "poll", "priority"),
    [
        (OperationKind.CAPTURE, False, Priority.CAPTURE),
        (OperationKind.CANCEL, False, Priority.CAPTURE),
        (OperationKind.REFUND, False, Priority.CAPTURE),
        (OperationKind.CHARGE, False, Priority.CHARGE),
        (OperationKind.AUTHORIZE, False, Priority.CHARGE),
        (OperationKind.CHARGE, True, Priority.POLL),
        (OperationKind.REFUND, True, Priority.POLL),
    ],
)
def test_the_priority_of_a_call(kind: OperationKind, *, poll: bool, priority: Priority) -> None:
    """What settles money goes first, then what begins; what only looks comes last."""
    assert priority_of(kind, poll=poll) is priority


@pytest.mark.parametrize("priority", list(Priority))
def test_without_a_limit_nobody_is_asked(priority: Priority) -> None:
    """Redis would be nowhere to be found, and no time passes."""
    clock = Clock()
    budget = Budget(connect_redis("redis://127.0.0.1:1"), 0, clock=clock, sleep=clock.move)
    assert all(budget.take(priority) for _ in range(1000))
    assert clock() == Clock()()
