"""Outcomes that nobody knows: what was done is found out, and charged once."""

import socket
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import select

from payment_worker.processing import KEY_LIFETIME
from shared.gateways import Failed, GatewayUnavailable, Refunded, Succeeded, Unknown
from shared.models import Operation
from shared.payments import OperationKind, Status
from tests.integration.test_worker_outcomes import assert_paid_once
from tests.worker import Bench

ABSENCE = timedelta(seconds=600)
BEYOND = timedelta(seconds=1)


def closed_port_url() -> str:
    """The address of a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(("fault", "charged"), [("lost_response", 1), ("connection_reset", 0)])
def test_a_lost_answer_is_asked_for_again_with_the_same_key(bench: Bench, fault: str, charged: int) -> None:
    """Whether the charge was made or not, the same call with the same key makes it exactly once."""
    operation_id = bench.order()
    assert isinstance(bench.attempt(operation_id, fault=fault), Unknown)
    assert len(bench.simulator.charges(operation_id=str(operation_id))) == charged
    assert bench.payment(operation_id).status is Status.PROCESSING
    bench.make_due(operation_id)
    assert bench.recover() == [operation_id]
    assert bench.gateway.keys == [str(operation_id)] * 2
    assert_paid_once(bench, operation_id)


def test_a_lost_decline_is_heard_at_the_second_try(bench: Bench) -> None:
    """The key replays the decline: the payment fails, with one failed charge at the gateway."""
    operation_id = bench.order(1013)
    assert isinstance(bench.attempt(operation_id, fault="lost_response"), Unknown)
    assert isinstance(bench.attempt(operation_id), Failed)
    assert len(bench.simulator.charges(operation_id=str(operation_id))) == 1
    assert bench.payment(operation_id).status is Status.FAILED


def poison(bench: Bench, operation_id: uuid.UUID, fault: str) -> None:
    """Let the key's answer be a 500, and hear it twice."""
    first = bench.attempt(operation_id, fault=fault)
    second = bench.attempt(operation_id)
    assert isinstance(first, Unknown)
    assert isinstance(second, Unknown)
    assert (first.key_poisoned, second.key_poisoned) == (False, True)


def test_a_charge_behind_a_poisoned_key_is_found_and_adopted(bench: Bench) -> None:
    """A replayed 500 tells nothing: the charge is looked for by our id, found, and becomes the payment's."""
    operation_id = bench.order()
    poison(bench, operation_id, "error_after")
    operation = bench.operation(operation_id)
    assert operation.doubt_since is not None
    assert operation.next_attempt_at is None
    assert bench.recover() == []
    assert bench.worker.process(operation_id, 2) is None
    assert bench.verify() == 1
    assert bench.gateway.keys == [str(operation_id)] * 2
    assert "charge found at the gateway" in bench.events(operation_id)
    assert bench.changed[-1] == bench.payment(operation_id).id
    assert_paid_once(bench, operation_id)
    assert (bench.verify(), bench.gateway.finds) == (0, 1)


def test_a_charge_that_is_absent_twice_is_tried_under_a_new_key(bench: Bench) -> None:
    """One look is not enough; after the second, well apart, a new key charges, and history says why."""
    operation_id = bench.order()
    poison(bench, operation_id, "error_before")
    assert bench.verify() == 0
    assert bench.operation(operation_id).absent_since is not None
    assert bench.verify() == 0
    assert bench.gateway.finds == 1  # too soon for a second look
    assert bench.recover() == []
    bench.change(operation_id, absent_since=-(ABSENCE + BEYOND))
    assert bench.verify() == 0
    assert bench.gateway.finds == 2
    operation = bench.operation(operation_id)
    assert (operation.gateway_key, operation.doubt_since, operation.first_sent_at) == (
        f"{operation_id}:2",
        None,
        None,
    )
    (renewal,) = [each for each in bench.timeline(operation_id) if each.event == "charge verified absent"]
    assert f"{operation_id}:2" in str(renewal.detail)
    assert bench.recover() == [operation_id]
    assert bench.gateway.keys == [*[str(operation_id)] * 2, f"{operation_id}:2"]
    assert_paid_once(bench, operation_id)


def test_a_charge_that_shows_up_at_the_second_look_is_adopted(bench: Bench) -> None:
    """The gateway may be slow to list what it made: that is what the second look is for."""
    operation_id = bench.order()
    poison(bench, operation_id, "error_before")
    bench.verify()
    parameters = bench.operation(operation_id).request or {}
    bench.gateway.inner.send(OperationKind.CHARGE, parameters, "how it came about does not matter")
    bench.change(operation_id, absent_since=-(ABSENCE + BEYOND))
    assert bench.verify() == 1
    assert_paid_once(bench, operation_id)


def test_no_look_no_conclusion(bench: Bench) -> None:
    """A gateway that cannot be asked is no evidence of absence."""
    operation_id = bench.order()
    poison(bench, operation_id, "error_after")
    reachable, bench.gateway.inner = bench.gateway.inner, bench.stripe(url=closed_port_url())
    with pytest.raises(GatewayUnavailable):
        bench.verify()
    assert bench.operation(operation_id).absent_since is None
    bench.gateway.inner = reachable
    assert bench.verify() == 1
    assert_paid_once(bench, operation_id)


def test_many_doubtful_charges_are_looked_for_in_one_pass(bench: Bench) -> None:
    """One listing settles all: the charged is adopted, the declined fails, the absent is looked for again."""
    charged, declined, absent = bench.order(), bench.order(1066), bench.order()
    for operation_id, fault in (
        (charged, "error_after"),
        (declined, "error_after"),
        (absent, "error_before"),
    ):
        poison(bench, operation_id, fault)
    assert (bench.verify(), bench.gateway.finds) == (2, 1)
    assert bench.payment(declined).status is Status.FAILED
    assert bench.payment(absent).status is Status.PROCESSING
    assert_paid_once(bench, charged)


def test_of_two_charges_found_one_is_refunded_and_flagged(bench: Bench) -> None:
    """If two attempts have charged after all, one is the payment's; the other goes back, for all to see."""
    operation_id = bench.order()
    poison(bench, operation_id, "error_after")
    second = bench.gateway.inner.send(
        OperationKind.CHARGE, bench.operation(operation_id).request or {}, f"{operation_id}:2"
    )
    assert isinstance(second, Succeeded)
    assert bench.verify() == 1
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    assert bench.operation(operation_id).needs_review
    assert bench.events(operation_id).count("charge succeeded") == 1
    kept, refund = bench.payment(operation_id), refund_of(bench, operation_id)
    assert (refund.amount_minor, refund.reason) == (kept.amount_minor, "a second success")
    assert isinstance(bench.attempt(refund.id), Refunded)
    charges = bench.simulator.charges(operation_id=str(operation_id))
    back = {each["payment_intent"]: each["amount_refunded"] for each in charges}
    assert back == {kept.gateway_ref: 0, refund.target_ref: kept.amount_minor}
    assert second.gateway_ref in back
    after = bench.payment(operation_id)
    assert (after.status, after.refunded_minor) == (Status.SUCCEEDED, 0), "the payment stays paid"
    bench.assert_history_is_whole(operation_id)


def refund_of(bench: Bench, operation_id: uuid.UUID) -> Operation:
    """The one refund of the operation's payment."""
    query = select(Operation).where(
        Operation.payment_id == bench.payment(operation_id).id, Operation.kind == OperationKind.REFUND
    )
    with bench.sessions() as session:
        return session.scalars(query).one()


@pytest.mark.parametrize("fault", ["lost_response", "connection_reset"])
def test_a_key_that_the_gateway_may_have_forgotten_is_never_sent_again(bench: Bench, fault: str) -> None:
    """After 23 hours the same key could charge anew: the charge is looked for instead."""
    operation_id = bench.order()
    bench.attempt(operation_id, fault=fault)
    bench.change(operation_id, first_sent_at=-(KEY_LIFETIME + BEYOND))
    bench.make_due(operation_id)
    assert bench.recover() == [operation_id]
    assert bench.gateway.keys == [str(operation_id)]
    assert bench.operation(operation_id).doubt_since is not None
    bench.verify()
    bench.change(operation_id, absent_since=-(ABSENCE + BEYOND))
    bench.verify()
    bench.recover()
    assert bench.gateway.keys[1:] == ([] if fault == "lost_response" else [f"{operation_id}:2"])
    assert_paid_once(bench, operation_id)


def test_a_key_within_its_lifetime_is_sent_again(bench: Bench) -> None:
    """An hour before the end the key still protects."""
    operation_id = bench.order()
    bench.attempt(operation_id, fault="lost_response")
    bench.change(operation_id, first_sent_at=-(KEY_LIFETIME - timedelta(minutes=1)))
    assert isinstance(bench.attempt(operation_id), Succeeded)
    assert_paid_once(bench, operation_id)
