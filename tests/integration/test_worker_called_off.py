"""Charges and holds that are cancelled between attempts: what certainly was not sent is never sent again."""

import uuid
from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import select

from shared.gateways import Refunded, Succeeded, Transient, Unknown
from shared.models import Operation
from shared.payments import CaptureMethod, OperationState, Status
from tests.life import cancel
from tests.worker import Bench

ABSENCE: Final = timedelta(seconds=601)
each_method = pytest.mark.parametrize("method", list(CaptureMethod))


def assert_called_off(bench: Bench, operation_id: uuid.UUID, sent: int) -> None:
    """The payment has ended and its order is free; the gateway was not asked again and has no charge."""
    payment, operation = bench.payment(operation_id), bench.operation(operation_id)
    assert (payment.status, payment.error_code) == (Status.FAILED, "CANCELED")
    assert (payment.captured_minor, payment.refund_reserved_minor) == (0, 0)
    assert (operation.state, operation.needs_review) == (OperationState.FAILED, False)
    assert len(bench.gateway.keys) == sent
    assert bench.simulator.charges(operation_id=str(operation_id)) == []
    assert bench.recover() == []
    bench.assert_history_is_whole(operation_id)
    assert bench.payment(bench.order(order_id=payment.order_id)).id != payment.id


@each_method
def test_what_never_reached_the_gateway_is_not_sent_again(bench: Bench, method: CaptureMethod) -> None:
    """Each attempt was certainly not carried out: the customer who has cancelled is not charged later."""
    operation_id = bench.order(capture_method=method)
    for _ in range(2):
        assert isinstance(bench.attempt(operation_id, fault="rate_limit"), Transient)
    cancel(bench, operation_id)
    bench.make_due(operation_id)
    bench.recover()
    assert_called_off(bench, operation_id, sent=2)


def test_a_cancel_while_it_is_refused_for_now_ends_it(bench: Bench) -> None:
    """It is the same when the cancel comes during the attempt itself."""
    operation_id = bench.order()
    bench.gateway.after.append(lambda: cancel(bench, operation_id))
    assert isinstance(bench.attempt(operation_id, fault="rate_limit"), Transient)
    bench.make_due(operation_id)
    bench.recover()
    assert_called_off(bench, operation_id, sent=1)


@each_method
def test_what_is_verified_absent_gets_no_new_key(bench: Bench, method: CaptureMethod) -> None:
    """In doubt when it was cancelled, and then found never to have been made: it is not made now."""
    operation_id = bench.order(capture_method=method)
    for fault in ("error_before", None):
        assert isinstance(bench.attempt(operation_id, fault=fault), Unknown)
    cancel(bench, operation_id)
    bench.verify()
    bench.change(operation_id, absent_since=-ABSENCE)
    bench.verify()
    assert bench.operation(operation_id).finished_at is None
    bench.recover()
    assert_called_off(bench, operation_id, sent=2)


def test_what_may_have_reached_the_gateway_is_found_out_and_given_back(bench: Bench) -> None:
    """After a lost answer no later refusal says that nothing was taken: only the same call again does."""
    operation_id = bench.order()
    assert isinstance(bench.attempt(operation_id, fault="lost_response"), Unknown)
    assert isinstance(bench.attempt(operation_id, fault="rate_limit"), Transient)
    cancel(bench, operation_id)
    assert isinstance(bench.attempt(operation_id), Succeeded)
    with bench.sessions() as session:
        query = select(Operation.id).where(Operation.finished_at.is_(None))
        assert isinstance(bench.attempt(session.scalars(query).one()), Refunded)
    assert bench.payment(operation_id).status is Status.REFUNDED
    assert len(bench.successes(operation_id)) == 1
    bench.assert_history_is_whole(operation_id)
