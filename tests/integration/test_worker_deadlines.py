"""What is past its time: holds that lapse and customers who do not come back, with and without webhooks."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, update

from payment_worker import deadlines
from shared.database import try_lock
from shared.gateways import Authorized, Cancelled, GatewayUnavailable, Succeeded, Waiting
from shared.models import Payment
from shared.payments import CaptureMethod, OperationState, Status
from shared.settings import Settings
from tests.hooked import Hooked, make_hooked
from tests.worker import NOT_DUE_S

ASKS = "pm_card_authenticationRequired"


@pytest.fixture
def bench(settings: Settings) -> Iterator[Hooked]:
    """A worker and an API on this test's own database."""
    with make_hooked(settings) as made:
        yield made


def held(bench: Hooked) -> uuid.UUID:
    """Make a hold."""
    operation_id = bench.order(10_000, capture_method=CaptureMethod.MANUAL)
    assert isinstance(bench.attempt(operation_id), Authorized)
    return operation_id


def waiting(bench: Hooked) -> uuid.UUID:
    """Make a payment whose customer has to act."""
    operation_id = bench.order(10_000, payment_method_id=ASKS)
    assert isinstance(bench.attempt(operation_id), Waiting)
    return operation_id


def pass_time(bench: Hooked, operation_id: uuid.UUID) -> None:
    """Let the payment's time be over."""
    over = update(Payment).where(Payment.id == bench.payment(operation_id).id)
    with bench.sessions.begin() as session:
        session.execute(over.values(expires_at=func.clock_timestamp() - timedelta(seconds=1)))


def sweep(bench: Hooked) -> int:
    """Let the sweep look after what is late."""
    return deadlines.sweep(bench.worker, NOT_DUE_S)


def in_s(bench: Hooked, operation_id: uuid.UUID) -> float:
    """Seconds until the payment's time is over."""
    expires_at = bench.payment(operation_id).expires_at
    assert expires_at is not None
    with bench.sessions() as session:
        now = session.scalar(func.clock_timestamp())
    return float((expires_at - now).total_seconds())


def test_what_is_in_time_is_left_alone(bench: Hooked) -> None:
    """A hold lasts as long as the gateway said, a customer has a day."""
    hold, customer = held(bench), waiting(bench)
    assert sweep(bench) == 0
    assert bench.gateway.looked_up == []
    assert in_s(bench, hold) > timedelta(days=6).total_seconds()
    assert 86_000 < in_s(bench, customer) <= 86_400


def test_a_lapsed_hold_is_cancelled_without_any_webhook(bench: Hooked) -> None:
    """The gateway let it lapse and its webhook was lost: we look and adopt."""
    operation_id = held(bench)
    bench.simulator.act("dashboard/cancel", payment_intent=bench.payment(operation_id).gateway_ref)
    pass_time(bench, operation_id)
    assert sweep(bench) == 1
    payment = bench.payment(operation_id)
    assert (payment.status, payment.expires_at) == (Status.CANCELLED, None)
    assert bench.timeline(operation_id)[-1].actor == "deadline"
    assert bench.announced()[-1] == "payment-cancelled"
    assert sweep(bench) == 0
    bench.assert_history_is_whole(operation_id)


def test_a_hold_that_the_gateway_still_has_is_looked_at_again(bench: Hooked) -> None:
    """Its time is over and it is there: that is told once, and nothing is changed."""
    operation_id = held(bench)
    for _ in range(3):
        pass_time(bench, operation_id)
        assert sweep(bench) == 1
    assert bench.payment(operation_id).status is Status.AUTHORIZED
    assert 0 < in_s(bench, operation_id) <= deadlines.LATER_AFTER.total_seconds()
    assert bench.events(operation_id).count(deadlines.STILL_HELD) == 1
    bench.assert_history_is_whole(operation_id)


def test_a_hold_that_was_captured_elsewhere_is_paid(bench: Hooked) -> None:
    """Looking after its time also finds a capture whose webhook was lost."""
    operation_id = held(bench)
    bench.simulator.act("dashboard/capture", payment_intent=bench.payment(operation_id).gateway_ref)
    pass_time(bench, operation_id)
    sweep(bench)
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    bench.assert_history_is_whole(operation_id)


def test_a_customer_who_does_not_come_back_is_given_up(bench: Hooked) -> None:
    """The gateway is asked to cancel; only when it has, the payment is over and its order free."""
    operation_id = waiting(bench)
    pass_time(bench, operation_id)
    assert sweep(bench) == 1
    assert bench.payment(operation_id).status is Status.REQUIRES_ACTION
    assert bench.timeline(operation_id)[-1].actor == "deadline"
    (cancel_id,) = [each for each in bench.open_operations(operation_id) if each != operation_id]
    for _ in range(2):
        pass_time(bench, operation_id)
        sweep(bench)
    assert set(bench.open_operations(operation_id)) == {operation_id, cancel_id}
    assert isinstance(bench.attempt(cancel_id), Cancelled)
    assert bench.payment(operation_id).status is Status.CANCELLED
    assert bench.operation(operation_id).state is OperationState.FAILED
    assert bench.open_operations(operation_id) == []
    bench.assert_history_is_whole(operation_id)


def test_a_customer_who_pays_at_the_last_moment_gets_the_money_back(bench: Hooked) -> None:
    """Given up, and paid before the gateway could cancel: the success is recorded and refunded."""
    operation_id = waiting(bench)
    pass_time(bench, operation_id)
    sweep(bench)
    (cancel_id,) = [each for each in bench.open_operations(operation_id) if each != operation_id]
    bench.simulator.act("authenticate", payment_intent=bench.payment(operation_id).gateway_ref, succeed=True)
    bench.hear("payment_intent.succeeded", bench.intent(operation_id))
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    assert isinstance(bench.attempt(cancel_id), Succeeded)
    (refund,) = bench.refunds(operation_id)
    bench.attempt(refund.id)
    assert bench.payment(operation_id).status is Status.REFUNDED
    bench.assert_history_is_whole(operation_id)


def test_one_sweep_at_a_time(bench: Hooked) -> None:
    """Two schedulers may send the task; only one of the two does it."""
    pass_time(bench, held(bench))
    with bench.sessions.begin() as session:
        assert try_lock(session, "deadlines")
        assert sweep(bench) == 0
    assert sweep(bench) == 1


def test_a_gateway_that_is_away_decides_nothing(bench: Hooked) -> None:
    """The hold stays as it is and comes back in a minute."""
    operation_id = held(bench)
    pass_time(bench, operation_id)
    bench.gateway.inner = bench.stripe(url="http://127.0.0.1:9")
    with pytest.raises(GatewayUnavailable):
        sweep(bench)
    assert bench.payment(operation_id).status is Status.AUTHORIZED
    assert 0 < in_s(bench, operation_id) <= deadlines.LOOK_AGAIN_AFTER.total_seconds()


def test_the_time_a_customer_has_is_a_setting(bench: Hooked) -> None:
    """It counts from when the customer was asked."""
    bench.worker = replace(bench.worker, abandon_after=timedelta(seconds=900))
    assert 700 < in_s(bench, waiting(bench)) <= 900
