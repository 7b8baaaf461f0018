"""An outage of the gateway: nothing more is sent, nothing is lost, and everything goes on by itself."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY

from payment_worker.breaker import FAILURES_IN_A_ROW, LAST_PAUSE_S, SPREAD
from payment_worker.gate import OutOfTurn
from shared.gateways import Sought, Unknown, stripe
from shared.payments import OperationKind, Status
from shared.settings import Settings
from tests.clock import Clock
from tests.worker import Bench, make_bench

MANY = 1_000_000  # faults: more than there will ever be requests
LATER = 5  # operations that come when it is open
PAUSE_S = LAST_PAUSE_S * (1 + SPREAD)  # longer than any
ROUNDS = 6


@pytest.fixture
def clock() -> Clock:
    """The breaker's clock."""
    return Clock()


@pytest.fixture
def bench(settings: Settings, clock: Clock) -> Iterator[Bench]:
    """A worker on this test's own database."""
    with make_bench(settings, clock=clock) as bench:
        yield bench


def requests_seen(bench: Bench) -> int:
    """How many requests have met the fault at the simulator."""
    (fault,) = bench.simulator.faults()["faults"]
    return MANY - int(fault["times"])


def go_on(bench: Bench, operations: list[uuid.UUID]) -> None:
    """Let the time come for everything, round after round, as it does after an outage."""
    for _ in range(ROUNDS):
        for each in operations:
            operation = bench.operation(each)
            if operation.finished_at is None and operation.doubt_since is None:
                bench.make_due(each)
        bench.recover()
        bench.verify(verify_absence_s=0)


def breaker_state() -> float | None:
    """What the metric says."""
    return REGISTRY.get_sample_value("payment_gateway_breaker_state")


@pytest.mark.parametrize("fault", ["connection_reset", "error_before", "rate_limit"])
def test_an_outage_stops_calls_and_ends_without_a_trace(bench: Bench, clock: Clock, fault: str) -> None:
    """While open no request reaches the gateway and no attempt is counted; later each is charged once."""
    operations = [bench.order() for _ in range(FAILURES_IN_A_ROW + LATER)]
    bench.simulator.fault(fault, times=MANY)
    began = bench.now()
    outcomes = [bench.attempt(each) for each in operations]
    assert None not in outcomes[:FAILURES_IN_A_ROW]
    assert outcomes[FAILURES_IN_A_ROW:] == [None] * LATER
    assert requests_seen(bench) == FAILURES_IN_A_ROW
    assert breaker_state() == 2
    for each in operations[FAILURES_IN_A_ROW:]:
        assert (bench.operation(each).attempt, bench.operation(each).lease_until) == (0, None)
        assert bench.payment(each).status is Status.PENDING
        assert (bench.operation(each).next_attempt_at or began) > began

    clock.move(PAUSE_S)
    assert [bench.attempt(each) is None for each in operations[-2:]] == [False, True]
    assert requests_seen(bench) == FAILURES_IN_A_ROW + 1

    bench.simulator.reset()
    clock.move(PAUSE_S)
    go_on(bench, operations)
    assert breaker_state() == 0
    for each in operations:
        assert bench.payment(each).status is Status.SUCCEEDED
        assert len(bench.simulator.charges(operation_id=str(each))) == 1
        bench.assert_history_is_whole(each)


def test_lost_answers_open_it_and_are_charged_once(bench: Bench, clock: Clock) -> None:
    """The money was taken each time and the answer lost: afterwards the same keys tell, once each."""
    operations = [bench.order() for _ in range(FAILURES_IN_A_ROW + LATER)]
    bench.simulator.fault("lost_response", times=MANY)
    outcomes = [bench.attempt(each) for each in operations]
    assert [isinstance(each, Unknown) for each in outcomes] == [True] * FAILURES_IN_A_ROW + [False] * LATER
    assert len([each for each in operations if bench.successes(each)]) == FAILURES_IN_A_ROW
    bench.simulator.reset()
    clock.move(PAUSE_S)
    go_on(bench, operations)
    for each in operations:
        assert bench.payment(each).status is Status.SUCCEEDED
        assert len(bench.simulator.charges(operation_id=str(each))) == 1


def test_declines_open_nothing(bench: Bench) -> None:
    """A bank's no is an answer like any other, however many there are."""
    operations = [bench.order(1013) for _ in range(2 * FAILURES_IN_A_ROW)]
    assert None not in [bench.attempt(each) for each in operations]
    assert {bench.payment(each).status for each in operations} == {Status.FAILED}


def test_what_is_not_ours_to_attempt_is_no_probe(bench: Bench, clock: Clock) -> None:
    """After the pause a message that comes late makes no call, and the next operation is the probe."""
    done, fresh = bench.order(), bench.order()
    bench.attempt(done)
    open_breaker(bench)
    clock.move(PAUSE_S)
    assert bench.worker.process(done, 0) is None
    assert bench.attempt(fresh) is not None
    assert bench.attempt(bench.order()) is not None


def test_an_open_breaker_gives_up_no_doubt(bench: Bench, clock: Clock) -> None:
    """Doubtful operations are not looked for while it is open; when it is half-open they are."""
    doubtful = bench.order()
    for _ in range(2):
        bench.attempt(doubtful, fault="error_after")
        bench.make_due(doubtful)
    assert bench.operation(doubtful).doubt_since is not None
    open_breaker(bench)
    finds = bench.gateway.finds
    with pytest.raises(OutOfTurn):
        bench.verify()
    assert bench.gateway.finds == finds
    clock.move(PAUSE_S)
    assert bench.verify() == 1
    assert bench.payment(doubtful).status is Status.SUCCEEDED


def open_breaker(bench: Bench) -> None:
    """Let enough calls fail, then let the gateway recover."""
    bench.simulator.fault("connection_reset", times=FAILURES_IN_A_ROW)
    for _ in range(FAILURES_IN_A_ROW):
        bench.attempt(bench.order())
    bench.simulator.reset()
    assert breaker_state() == 2


def test_an_operation_that_waits_for_nobody_is_not_woken(bench: Bench) -> None:
    """What was given to an operator has no next turn, and being sent away gives it none."""
    escalated = bench.order()
    bench.change(escalated, next_attempt_at=None, needs_review=True)
    open_breaker(bench)
    assert bench.attempt(escalated) is None
    assert bench.operation(escalated).next_attempt_at is None


def test_every_page_of_a_look_takes_its_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long list is many requests: each page after the first asks, and a no ends the look."""
    began = datetime.now(UTC)
    operations = [bench.order() for _ in range(3)]
    for each in operations:
        bench.attempt(each)
    monkeypatch.setattr(stripe, "PAGE", 1)
    pages: list[str] = []
    settings = bench.settings
    gateway = stripe.StripeGateway(
        settings.stripe_secret_key, settings.stripe_api_url, before_page=lambda: pages.append("page")
    )
    sought = [
        Sought(operation_id=str(each), kind=OperationKind.CHARGE, gateway_ref=None) for each in operations
    ]
    found = gateway.find(sought, began)
    assert [len(found[str(each)]) for each in operations] == [1, 1, 1]
    assert len(pages) >= len(operations) - 1

    def refuse() -> None:
        raise OutOfTurn("no token")

    gateway = stripe.StripeGateway(settings.stripe_secret_key, settings.stripe_api_url, before_page=refuse)
    with pytest.raises(OutOfTurn):
        gateway.find(sought, began)
