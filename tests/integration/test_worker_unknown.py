"""Captures, cancels and refunds whose outcome nobody knows: found out, never guessed, done once."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import pytest
import stripe

from payment_worker import recovery
from payment_worker.breaker import LAST_PAUSE_S, SPREAD
from shared.gateways import Authorized, Cancelled, GatewayUnavailable, Refunded, Succeeded, Unknown
from shared.models import Operation
from shared.payments import CaptureMethod, OperationKind, OperationState, Status
from shared.settings import Settings
from tests.clock import Clock
from tests.life import cancel, capture, hold, operation_of, refund
from tests.worker import Bench, make_bench

ABSENCE: Final = timedelta(seconds=601)
PAUSE_S: Final = LAST_PAUSE_S * (1 + SPREAD)  # longer than any pause of the breaker
TEN_MINUTES_S: Final = 600
PART_MINOR: Final = 4_000
WHOLE_MINOR: Final = 10_000
PATHS: Final = {
    OperationKind.CAPTURE: "/v1/payment_intents/*/capture",
    OperationKind.CANCEL: "/v1/payment_intents/*/cancel",
    OperationKind.REFUND: "/v1/refunds",
}
DONE: Final = {
    OperationKind.CAPTURE: Succeeded,
    OperationKind.CANCEL: Cancelled,
    OperationKind.REFUND: Refunded,
}
ANNOUNCED: Final = {
    OperationKind.CAPTURE: "payment-succeeded",
    OperationKind.CANCEL: "payment-cancelled",
    OperationKind.REFUND: "refund-succeeded",
}
each_kind = pytest.mark.parametrize("kind", list(PATHS))


class Step(NamedTuple):
    """A further operation, and the charge or hold that it is about."""

    primary: uuid.UUID
    id: uuid.UUID


@pytest.fixture
def clock() -> Clock:
    """The breaker's clock."""
    return Clock()


@pytest.fixture
def bench(settings: Settings, clock: Clock) -> Iterator[Bench]:
    """A worker on this test's own database."""
    with make_bench(settings, clock=clock) as bench:
        yield bench


def charged(bench: Bench) -> uuid.UUID:
    """Take money and return the operation that took it."""
    operation_id = bench.order(WHOLE_MINOR)
    assert isinstance(bench.attempt(operation_id), Succeeded)
    return operation_id


def ask(bench: Bench, kind: OperationKind) -> Step:
    """Ask for a part of a hold, for its end, or for a part of a charge back."""
    if kind is OperationKind.REFUND:
        primary = charged(bench)
        return Step(primary, refund(bench, primary, PART_MINOR).id)
    primary = hold(bench, WHOLE_MINOR)
    if kind is OperationKind.CAPTURE:
        return Step(primary, capture(bench, primary, PART_MINOR).id)
    return Step(primary, operation_of(cancel(bench, primary)).id)


def go_wrong(bench: Bench, step: Step, fault: str) -> None:
    """Let the next call of this operation meet a fault."""
    kind = bench.operation(step.id).kind
    payment_id = str(bench.payment(step.id).id)
    bench.simulator.fault(fault, path=PATHS[kind], payment_id=payment_id)


def poison(bench: Bench, step: Step, fault: str) -> None:
    """Let the key's answer be a 500, and hear it twice."""
    go_wrong(bench, step, fault)
    first, second = bench.attempt(step.id), bench.attempt(step.id)
    assert isinstance(first, Unknown)
    assert isinstance(second, Unknown)
    assert (first.key_poisoned, second.key_poisoned) == (False, True)


def given_back_minor(bench: Bench, step: Step) -> list[int]:
    """The amounts of all refunds of our own that the simulator has made for the payment."""
    made = bench.simulator.refunds(payment_id=str(bench.payment(step.id).id))
    return [each["amount"] for each in made if each["status"] not in {"failed", "canceled"}]


def assert_open(bench: Bench, step: Step) -> None:
    """Whatever the gateway did, as long as nobody knows the payment stands as before, its sums with it."""
    payment, operation = bench.payment(step.id), bench.operation(step.id)
    assert operation.finished_at is None
    if operation.kind is OperationKind.REFUND:
        assert (payment.status, payment.refund_reserved_minor) == (Status.SUCCEEDED, PART_MINOR)
        assert (payment.captured_minor, payment.refunded_minor) == (WHOLE_MINOR, 0)
    else:
        assert (payment.status, payment.captured_minor) == (Status.AUTHORIZED, 0)
    assert ANNOUNCED[operation.kind] not in [row.type for row in bench.outbox()][2:]


def assert_done_once(bench: Bench, step: Step) -> None:
    """Our sums, the gateway's and the announcements tell of exactly one capture, cancel or refund."""
    payment, operation = bench.payment(step.id), bench.operation(step.id)
    assert (operation.state, operation.needs_review) == (OperationState.SUCCEEDED, False)
    (charge,) = bench.simulator.charges(payment_id=str(payment.id))
    sums = (payment.captured_minor, payment.refunded_minor, payment.refund_reserved_minor)
    if operation.kind is OperationKind.CAPTURE:
        assert (payment.status, sums) == (Status.SUCCEEDED, (PART_MINOR, 0, 0))
        assert (charge["amount_captured"], given_back_minor(bench, step)) == (PART_MINOR, [])
    elif operation.kind is OperationKind.CANCEL:
        assert (payment.status, sums) == (Status.CANCELLED, (0, 0, 0))
        assert charge["amount_captured"] == 0
        standing = bench.gateway.inner.look_up(operation.kind, str(payment.gateway_ref))
        assert isinstance(standing, Cancelled)
    else:
        assert (payment.status, sums) == (Status.PARTIALLY_REFUNDED, (WHOLE_MINOR, PART_MINOR, 0))
        assert given_back_minor(bench, step) == [PART_MINOR]
    of_payment = [row.type for row in bench.outbox() if row.aggregateid == payment.id]
    assert of_payment.count(ANNOUNCED[operation.kind]) == 1
    bench.assert_history_is_whole(step.id)


def keys_of(bench: Bench, step: Step) -> list[str]:
    """The keys under which the operation was sent."""
    return [key for key in bench.gateway.keys if key.startswith(str(step.id))]


@each_kind
@pytest.mark.parametrize("fault", ["lost_response", "connection_reset", "rate_limit", "lock_timeout"])
def test_the_same_key_gives_the_same_result_once(bench: Bench, kind: OperationKind, fault: str) -> None:
    """Whether it was done or not, the same call with the same key does it exactly once."""
    step = ask(bench, kind)
    go_wrong(bench, step, fault)
    assert not isinstance(bench.attempt(step.id), DONE[kind])
    assert_open(bench, step)
    bench.make_due(step.id)
    assert bench.recover() == [step.id]
    assert keys_of(bench, step) == [str(step.id)] * 2
    assert_done_once(bench, step)


@each_kind
def test_what_was_done_behind_a_poisoned_key_is_adopted(bench: Bench, kind: OperationKind) -> None:
    """A replayed 500 tells nothing: a look at the gateway does, and nothing is sent again."""
    step = ask(bench, kind)
    poison(bench, step, "error_after")
    assert_open(bench, step)
    assert bench.recover() == []
    assert bench.verify() == 1
    assert f"{kind} found at the gateway" in bench.events(step.id)
    assert keys_of(bench, step) == [str(step.id)] * 2
    assert_done_once(bench, step)


@each_kind
def test_what_is_absent_twice_is_sent_under_a_new_key(bench: Bench, kind: OperationKind) -> None:
    """One look is not enough; after the second, well apart, a new key does it once."""
    step = ask(bench, kind)
    poison(bench, step, "error_before")
    assert bench.verify() == 0
    assert (bench.verify(), bench.gateway.finds) == (0, 1)
    assert_open(bench, step)
    assert bench.recover() == []
    bench.change(step.id, absent_since=-ABSENCE)
    assert bench.verify() == 0
    assert_open(bench, step)
    assert bench.recover() == [step.id]
    assert keys_of(bench, step) == [*[str(step.id)] * 2, f"{step.id}:2"]
    assert f"{kind} verified absent" in bench.events(step.id)
    assert_done_once(bench, step)


def test_a_look_that_dies_is_made_again_within_a_minute(bench: Bench) -> None:
    """What a killed process, or one that lost the database, was looking for is soon anybody's again."""
    step = ask(bench, OperationKind.REFUND)
    poison(bench, step, "error_before")
    recovery._take_doubtful(bench.sessions, TEN_MINUTES_S)
    operation = bench.operation(step.id)
    assert operation.lease_until is not None
    assert operation.lease_until - datetime.now(UTC) <= timedelta(minutes=1)
    bench.change(step.id, lease_until=timedelta(seconds=-1))
    bench.verify()
    assert bench.operation(step.id).absent_since is not None


@each_kind
def test_a_gateway_that_cannot_be_asked_is_no_evidence(bench: Bench, kind: OperationKind) -> None:
    """While looks fail the doubt stays; the first that succeeds ends it."""
    step = ask(bench, kind)
    poison(bench, step, "error_after")
    bench.simulator.fault("unavailable")
    with pytest.raises(GatewayUnavailable):
        bench.verify()
    assert bench.operation(step.id).absent_since is None
    assert_open(bench, step)
    bench.simulator.reset()
    assert bench.verify() == 1
    assert_done_once(bench, step)


def test_one_that_cannot_be_looked_up_keeps_no_other_in_doubt(bench: Bench) -> None:
    """A hold that the account does not have is neither found nor absent; the others are settled."""
    lost, other = ask(bench, OperationKind.CAPTURE), ask(bench, OperationKind.CAPTURE)
    for each in (lost, other):
        poison(bench, each, "error_after")
    bench.change(lost.id, target_ref="pi_of_another_account")
    assert bench.verify() == 1
    assert_done_once(bench, other)
    assert bench.operation(lost.id).absent_since is None
    assert bench.operation(lost.id).doubt_since is not None


@pytest.mark.parametrize("kind", [OperationKind.CHARGE, OperationKind.REFUND])
def test_what_other_systems_do_in_the_account_is_not_read(bench: Bench, kind: OperationKind) -> None:
    """A look passes over others' charges and refunds, also in a currency that we do not know."""
    url = bench.settings.stripe_api_url
    account = stripe.StripeClient(bench.settings.stripe_secret_key, base_addresses={"api": url})
    others = account.v1.payment_intents.create(
        {"amount": 500, "currency": "bgn", "confirm": True, "payment_method": "pm_card_visa"}
        | {"payment_method_types": ["card"]}  # type: ignore[arg-type]
    )
    account.v1.refunds.create({"payment_intent": others.id})
    if kind is OperationKind.REFUND:
        step = ask(bench, kind)
        poison(bench, step, "error_after")
        assert bench.verify() == 1
        assert_done_once(bench, step)
        return
    operation_id = bench.order(WHOLE_MINOR)
    bench.attempt(operation_id, fault="error_after")
    assert isinstance(bench.attempt(operation_id), Unknown)
    assert bench.verify() == 1
    assert bench.payment(operation_id).status is Status.SUCCEEDED


def test_a_second_refund_is_counted_and_shown(bench: Bench) -> None:
    """Should the gateway ever give back twice for one refund, our sums say so and a person sees it."""
    step = ask(bench, OperationKind.REFUND)
    poison(bench, step, "error_after")
    request = bench.operation(step.id).request or {}
    second = bench.gateway.inner.send(OperationKind.REFUND, request, f"{step.id}:2")
    assert isinstance(second, Refunded)
    assert bench.verify() == 1
    payment = bench.payment(step.id)
    assert (payment.refunded_minor, payment.refund_reserved_minor) == (2 * PART_MINOR, 0)
    assert sum(given_back_minor(bench, step)) == payment.refunded_minor
    assert bench.operation(step.id).needs_review
    bench.assert_history_is_whole(step.id)


def test_another_amount_captured_is_recorded_and_shown(bench: Bench) -> None:
    """Somebody has captured everything at the dashboard: that is the truth, and not what we were asked."""
    step = ask(bench, OperationKind.CAPTURE)
    bench.simulator.act("dashboard/capture", payment_intent=bench.payment(step.id).gateway_ref)
    assert isinstance(bench.attempt(step.id), Succeeded)
    assert bench.payment(step.id).captured_minor == WHOLE_MINOR
    assert bench.operation(step.id).needs_review
    bench.assert_history_is_whole(step.id)


def test_a_hold_that_comes_about_while_it_is_cancelled_is_let_go(bench: Bench) -> None:
    """The cancel that is under way is the one that counts: no second one is asked for."""
    held = bench.order(
        WHOLE_MINOR,
        capture_method=CaptureMethod.MANUAL,
        payment_method_id="pm_card_authenticationRequired",
    )
    bench.attempt(held)
    asked = operation_of(cancel(bench, held))
    bench.simulator.act("authenticate", payment_intent=bench.payment(held).gateway_ref, succeed=True)
    assert isinstance(bench.attempt(held), Authorized)
    assert bench.payment(held).status is Status.AUTHORIZED
    assert isinstance(bench.attempt(asked.id), Cancelled)
    assert bench.payment(held).status is Status.CANCELLED
    assert bench.events(held).count("cancel requested") == 1
    bench.assert_history_is_whole(held)


def open_operations(bench: Bench) -> list[Operation]:
    """What has no outcome yet."""
    with bench.sessions() as session:
        return session.query(Operation).where(Operation.finished_at.is_(None)).all()


def let_time_pass(bench: Bench, clock: Clock, rounds: int) -> None:
    """Let everything's turn come, as often as it would in that time."""
    for _ in range(rounds):
        clock.move(PAUSE_S)
        for each in open_operations(bench):
            if each.doubt_since is None:
                bench.make_due(each.id)
            elif each.absent_since:
                bench.change(each.id, absent_since=-ABSENCE)
        bench.recover()
        with suppress(GatewayUnavailable):  # what looks at a gateway that is down says so
            bench.verify()


@pytest.mark.parametrize("fault", ["unavailable", "rate_limit", "error_before", "error_after"])
def test_ten_bad_minutes_end_with_everything_done_once(bench: Bench, clock: Clock, fault: str) -> None:
    """All kinds of requests are accepted meanwhile; the backlog drains by itself, nothing is done twice."""
    before = [charged(bench), charged(bench)]
    holds = [hold(bench, WHOLE_MINOR), hold(bench, WHOLE_MINOR)]
    bench.simulator.fault(fault, times=None, reads=True)
    orders = [bench.order(WHOLE_MINOR) for _ in range(4)]
    steps = [Step(each, refund(bench, each, PART_MINOR).id) for each in before]
    steps += [Step(each, capture(bench, each, PART_MINOR).id) for each in holds]
    let_time_pass(bench, clock, rounds=round(TEN_MINUTES_S / PAUSE_S))
    assert len(open_operations(bench)) == len(orders) + len(steps)
    assert [bench.payment(each).refunded_minor for each in before] == [0, 0]

    bench.simulator.reset()
    let_it_drain(bench, clock)
    for step in steps:
        assert_done_once(bench, step)
    for each in orders:
        (charge,) = bench.simulator.charges(operation_id=str(each))
        assert (charge["status"], charge["amount_captured"]) == ("succeeded", WHOLE_MINOR)
        assert bench.payment(each).status is Status.SUCCEEDED
        bench.assert_history_is_whole(each)


def let_it_drain(bench: Bench, clock: Clock) -> None:
    """Let turns pass until no work is left; a dozen are plenty."""
    for _ in range(12):
        let_time_pass(bench, clock, rounds=1)
        if not open_operations(bench):
            return
    assert open_operations(bench) == []
