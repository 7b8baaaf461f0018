"""A whole life through the worker and the simulator: holds, captures, voids, refunds, the customer."""

import uuid

import pytest
from sqlalchemy import select

from shared.commands.operations import Requested
from shared.gateways import Authorized, Cancelled, Refunded, Succeeded
from shared.gateways.stripe import StripeGateway
from shared.models import Operation
from shared.payments import CaptureMethod, OperationState, PaymentConflict, Status
from tests.life import cancel, capture, hold, operation_of, refund
from tests.worker import Bench


def open_follow_up(bench: Bench, operation_id: uuid.UUID) -> uuid.UUID:
    """Return the one operation of the payment that waits beside this one."""
    with bench.sessions() as session:
        query = select(Operation.id).where(
            Operation.payment_id == bench.payment(operation_id).id, Operation.finished_at.is_(None)
        )
        return session.scalars(query).one()


def test_a_hold_is_captured_in_part_and_the_rest_released(bench: Bench) -> None:
    """Only what was captured is the payment's money; what Stripe releases is no refund."""
    held = hold(bench)
    captured = capture(bench, held, 6_000)
    assert isinstance(bench.attempt(captured.id), Succeeded)
    payment = bench.payment(held)
    assert (payment.status, payment.captured_minor, payment.refunded_minor) == (Status.SUCCEEDED, 6_000, 0)
    assert bench.gateway.refunds_of(str(payment.gateway_ref)) == []
    bench.assert_history_is_whole(held)


def test_a_hold_that_is_cancelled_takes_nothing(bench: Bench) -> None:
    """The gateway lets go of it, and both operations are finished."""
    held = hold(bench)
    assert isinstance(bench.attempt(operation_of(cancel(bench, held)).id), Cancelled)
    payment = bench.payment(held)
    assert (payment.status, payment.captured_minor, payment.expires_at) == (Status.CANCELLED, 0, None)
    with pytest.raises(PaymentConflict, match="cancelled"):
        capture(bench, held)
    bench.assert_history_is_whole(held)


def test_refunds_in_parts_give_everything_back(bench: Bench) -> None:
    """Each part moves the sums and is announced; with the last the payment is refunded."""
    charged = bench.order(10_000)
    bench.attempt(charged)
    for amount_minor, status in ((3_000, Status.PARTIALLY_REFUNDED), (None, Status.REFUNDED)):
        part = refund(bench, charged, amount_minor)
        assert bench.payment(charged).refund_reserved_minor == part.amount_minor
        assert isinstance(bench.attempt(part.id), Refunded)
        assert (bench.payment(charged).status, bench.payment(charged).refund_reserved_minor) == (status, 0)
    assert bench.payment(charged).refunded_minor == 10_000
    assert [row.type for row in bench.outbox()].count("refund-succeeded") == 2
    bench.assert_history_is_whole(charged)


def test_a_cancel_in_flight_undoes_the_charge_when_it_is_known(bench: Bench) -> None:
    """It is only noted while the charge is in flight; the success is then given back by itself."""
    asked: list[Requested] = []
    charged = bench.order(10_000)
    bench.gateway.after.append(lambda: asked.append(cancel(bench, charged)))
    assert isinstance(bench.attempt(charged), Succeeded)
    assert bench.payment(charged).status is Status.SUCCEEDED
    assert isinstance(bench.attempt(open_follow_up(bench, charged)), Refunded)
    assert bench.payment(charged).status is Status.REFUNDED
    bench.assert_history_is_whole(charged)


def test_a_cancel_in_flight_releases_the_hold_when_it_is_known(bench: Bench) -> None:
    """As a charge is given back, a hold is let go."""
    asked: list[Requested] = []
    held = bench.order(10_000, capture_method=CaptureMethod.MANUAL)
    bench.gateway.after.append(lambda: asked.append(cancel(bench, held)))
    assert isinstance(bench.attempt(held), Authorized)
    assert isinstance(bench.attempt(open_follow_up(bench, held)), Cancelled)
    assert bench.payment(held).status is Status.CANCELLED
    bench.assert_history_is_whole(held)


def test_a_cancel_before_it_was_sent_needs_no_gateway(bench: Bench) -> None:
    """Nothing has left us, so nothing has to be asked; a message that comes late finds nothing to do."""
    charged = bench.order()
    assert cancel(bench, charged).operation is None
    assert bench.payment(charged).status is Status.CANCELLED
    assert bench.operation(charged).state is OperationState.FAILED
    assert bench.attempt(charged) is None
    assert bench.gateway.keys == []
    bench.assert_history_is_whole(charged)


def test_a_payment_without_a_card_waits_for_the_customer(bench: Bench) -> None:
    """At Stripe itself nobody pays for those who bring no card: they confirm with the client secret."""
    real = bench.stripe()
    assert isinstance(real, StripeGateway)
    real.simulated = False
    bench.gateway.inner = real
    charged = bench.order()
    bench.attempt(charged)
    payment = bench.payment(charged)
    assert payment.status is Status.REQUIRES_ACTION
    assert payment.next_action is not None
    assert payment.next_action["type"] == "confirm"
    bench.simulator.act("confirm", payment_intent=payment.gateway_ref, payment_method="pm_card_visa")
    bench.make_due(charged)
    assert bench.recover() == [charged]
    assert bench.payment(charged).status is Status.SUCCEEDED
    bench.assert_history_is_whole(charged)


def test_a_customer_who_pays_while_it_is_cancelled_gets_the_money_back(bench: Bench) -> None:
    """Stripe refuses to cancel what is paid: the success is recorded, then refunded."""
    charged = bench.order(payment_method_id="pm_card_authenticationRequired")
    bench.attempt(charged)
    cancelled = operation_of(cancel(bench, charged))
    bench.simulator.act("authenticate", payment_intent=bench.payment(charged).gateway_ref, succeed=True)
    assert isinstance(bench.attempt(cancelled.id), Succeeded)
    assert bench.operation(cancelled.id).state is OperationState.FAILED
    assert bench.operation(charged).state is OperationState.SUCCEEDED
    assert bench.payment(charged).status is Status.SUCCEEDED
    assert isinstance(bench.attempt(open_follow_up(bench, charged)), Refunded)
    assert bench.payment(charged).status is Status.REFUNDED
    bench.assert_history_is_whole(charged)
