"""What others did at the gateway shows up here: refunds from the dashboard, refunds that fail, disputes."""

import itertools
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.local.parts import program
from payment_worker.figures import Figures
from payment_worker.webhooks import MAX_FAILURES, MAX_LOOKS
from shared.commands.cancel import cancel_payment
from shared.commands.operations import Requested
from shared.commands.refund import RefundPayment, refund_payment
from shared.gateways import Failed, GatewayUnavailable, Refunded, Waiting
from shared.models import InboxState
from shared.payments import CaptureMethod, OperationState, Status
from shared.settings import Settings
from shared.wakeup import connect_redis
from tests.hooked import ORIGIN, Hooked, make_hooked
from tests.worker import NOT_DUE_S

CREATED, UPDATED, REFUND_FAILED = "refund.created", "refund.updated", "refund.failed"
REFUNDED = "charge.refunded"
DISPUTED, DISPUTE_MOVED = "charge.dispute.created", "charge.dispute.updated"
DISPUTE_CLOSED = "charge.dispute.closed"


@pytest.fixture
def bench(settings: Settings) -> Iterator[Hooked]:
    """A worker and an API on this test's own database."""
    with make_hooked(settings) as made:
        yield made


def paid(bench: Hooked, amount_minor: int = 10_000, **facts: Any) -> uuid.UUID:
    """Make a payment that is paid."""
    operation_id = bench.order(amount_minor, **facts)
    bench.attempt(operation_id)
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    return operation_id


def dashboard_refund(bench: Hooked, operation_id: uuid.UUID, amount_minor: int | None = None) -> Any:
    """Let someone refund at the dashboard; return the refund."""
    ref = bench.payment(operation_id).gateway_ref
    return bench.simulator.act("dashboard/refund", payment_intent=ref, amount=amount_minor)


def ask_refund(bench: Hooked, operation_id: uuid.UUID, amount_minor: int) -> Requested:
    """Ask for a refund of ours."""
    command = RefundPayment(amount_minor=amount_minor)
    payment_id = bench.payment(operation_id).id
    return refund_payment(bench.sessions, payment_id, command, ORIGIN, recovery_after_s=NOT_DUE_S)


def dispute(bench: Hooked, operation_id: uuid.UUID, **facts: Any) -> Any:
    """Let the customer's bank dispute a payment; return the dispute."""
    ref = bench.payment(operation_id).gateway_ref
    return bench.simulator.act("dispute", payment_intent=ref, **facts)


# --- refunds that are not ours ---


@pytest.mark.parametrize("order", list(itertools.permutations((CREATED, UPDATED, REFUNDED))), ids=str)
def test_dashboard_refunds_show_up_once(bench: Hooked, order: tuple[str, ...]) -> None:
    """Two parts, each told by several webhooks in any order and twice: two operations, two events."""
    operation_id = paid(bench)
    for amount_minor, status in ((3_000, Status.PARTIALLY_REFUNDED), (7_000, Status.REFUNDED)):
        refund = dashboard_refund(bench, operation_id, amount_minor)
        for kind in order + order:
            thing = bench.charge(operation_id) if kind == REFUNDED else refund
            assert bench.hear(kind, thing).state is InboxState.PROCESSED
        assert bench.payment(operation_id).status is status
    refunds = bench.refunds(operation_id)
    assert [(each.amount_minor, each.state) for each in refunds] == [
        (3_000, OperationState.SUCCEEDED),
        (7_000, OperationState.SUCCEEDED),
    ]
    assert all(each.gateway_ref and each.next_attempt_at is None for each in refunds)
    assert bench.announced().count("refund-succeeded") == 2
    assert "refund-requested" not in bench.announced()
    bench.assert_history_is_whole(operation_id)


def test_a_refund_of_a_capture_that_is_not_known_yet(bench: Hooked) -> None:
    """Someone captured and refunded at the dashboard; the refund's webhook comes first: both are recorded."""
    operation_id = bench.order(10_000, capture_method=CaptureMethod.MANUAL)
    bench.attempt(operation_id)
    ref = bench.payment(operation_id).gateway_ref
    bench.simulator.act("dashboard/capture", payment_intent=ref, amount=6_000)
    refund = dashboard_refund(bench, operation_id, 1_000)
    bench.hear(CREATED, refund)
    payment = bench.payment(operation_id)
    assert (payment.status, payment.captured_minor, payment.refunded_minor) == (
        Status.PARTIALLY_REFUNDED,
        6_000,
        1_000,
    )
    assert len(bench.refunds(operation_id)) == 1
    bench.assert_history_is_whole(operation_id)


def test_a_dashboard_refund_overtakes_a_reservation(bench: Hooked) -> None:
    """The truth is recorded although we had reserved the money; our refund is refused then."""
    operation_id = paid(bench)
    ours = ask_refund(bench, operation_id, 8_000).operation
    assert ours is not None
    bench.hear(CREATED, dashboard_refund(bench, operation_id, 7_000))
    payment = bench.payment(operation_id)
    assert (payment.refunded_minor, payment.refund_reserved_minor) == (7_000, 8_000)
    assert isinstance(bench.attempt(ours.id), Failed)
    payment = bench.payment(operation_id)
    assert (payment.refunded_minor, payment.refund_reserved_minor) == (7_000, 0)
    assert payment.status is Status.PARTIALLY_REFUNDED
    bench.assert_history_is_whole(operation_id)


def test_a_pending_dashboard_refund_waits_for_its_turn_and_is_polled(bench: Hooked) -> None:
    """It reserves the money once ours has let go of it, and our own asking finds out how it ended."""
    operation_id = paid(bench, payment_method_id="pm_card_pendingRefund")
    ours = ask_refund(bench, operation_id, 8_000).operation
    assert ours is not None
    refund = dashboard_refund(bench, operation_id, 7_000)
    assert refund["status"] == "pending"
    message_id = bench.deliver(CREATED, refund)
    bench.drain()
    assert bench.message(message_id).state is InboxState.RECEIVED
    assert bench.refunds(operation_id)[1:] == []
    assert isinstance(bench.attempt(ours.id), Failed)
    bench.drain()
    assert bench.message(message_id).state is InboxState.PROCESSED
    (waits,) = [each for each in bench.refunds(operation_id) if each.id != ours.id]
    assert waits.state is OperationState.REQUIRES_ACTION
    assert bench.payment(operation_id).refund_reserved_minor == 7_000
    bench.simulator.act("refund", refund=refund["id"], status="succeeded")
    bench.make_due(waits.id)
    assert bench.recover() == [waits.id]
    payment = bench.payment(operation_id)
    assert (payment.refunded_minor, payment.refund_reserved_minor) == (7_000, 0)
    assert bench.announced().count("refund-succeeded") == 1
    bench.assert_history_is_whole(operation_id)


@pytest.mark.parametrize("whose", ["ours", "dashboard"])
def test_a_refund_that_fails_after_it_had_succeeded(bench: Hooked, whose: str) -> None:
    """The payment is paid again, told once however often the webhook comes."""
    operation_id = paid(bench)
    if whose == "ours":
        ours = ask_refund(bench, operation_id, 4_000).operation
        assert ours is not None
        assert isinstance(bench.attempt(ours.id), Refunded)
        (refund,) = bench.simulator.refunds(operation_id=str(ours.id))
    else:
        refund = dashboard_refund(bench, operation_id, 4_000)
        bench.hear(CREATED, refund)
    failed = bench.simulator.act("refund", refund=refund["id"], status="failed")
    for kind in (REFUND_FAILED, UPDATED, REFUND_FAILED):
        bench.hear(kind, failed)
    bench.hear(REFUNDED, bench.charge(operation_id))
    payment = bench.payment(operation_id)
    assert (payment.status, payment.refunded_minor) == (Status.SUCCEEDED, 0)
    assert bench.announced().count("refund-failed") == 1
    assert len(bench.refunds(operation_id)) == 1
    bench.assert_history_is_whole(operation_id)


def test_a_failed_refund_of_a_cancelled_payment_is_a_persons(bench: Hooked) -> None:
    """The money of a payment that was cancelled in flight came back to us: somebody must see it."""
    operation_id = bench.order(10_000)
    payment_id = bench.payment(operation_id).id
    bench.gateway.after.append(
        lambda: cancel_payment(bench.sessions, payment_id, None, ORIGIN, recovery_after_s=NOT_DUE_S)
    )
    bench.attempt(operation_id)
    (refund,) = bench.refunds(operation_id)
    assert isinstance(bench.attempt(refund.id), Refunded)
    (made,) = bench.simulator.refunds(operation_id=str(refund.id))
    bench.hear(REFUND_FAILED, bench.simulator.act("refund", refund=made["id"], status="failed"))
    assert bench.operation(refund.id).needs_review
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    bench.assert_history_is_whole(operation_id)


def test_our_own_refund_is_told_before_our_record(bench: Hooked) -> None:
    """While a worker has it in hand the webhook waits, and then there is nothing left to ask."""
    operation_id = paid(bench)
    ours = ask_refund(bench, operation_id, 4_000).operation
    assert ours is not None
    early: list[str] = []

    def webhook() -> None:
        (made,) = bench.simulator.refunds(operation_id=str(ours.id))
        early.extend([bench.deliver(CREATED, made), bench.deliver(REFUNDED, bench.charge(operation_id))])
        bench.drain()
        assert {bench.message(each).state for each in early} == {InboxState.RECEIVED}

    bench.gateway.after.append(webhook)
    assert isinstance(bench.attempt(ours.id), Refunded)
    asked = len(bench.gateway.looked_up)
    bench.drain()
    assert {bench.message(each).state for each in early} == {InboxState.PROCESSED}
    assert len(bench.gateway.looked_up) == asked
    assert bench.payment(operation_id).refunded_minor == 4_000
    bench.assert_history_is_whole(operation_id)


@pytest.mark.parametrize("kind", [CREATED, REFUNDED])
def test_our_own_refund_whose_answer_was_lost(bench: Hooked, kind: str) -> None:
    """The webhook tells it: it is matched by our id, not counted as another one."""
    operation_id = paid(bench)
    ours = ask_refund(bench, operation_id, 4_000).operation
    assert ours is not None
    bench.attempt(ours.id, fault="lost_response")
    (made,) = bench.simulator.refunds(operation_id=str(ours.id))
    bench.hear(kind, bench.charge(operation_id) if kind == REFUNDED else made)
    assert [each.id for each in bench.refunds(operation_id)] == [ours.id]
    assert bench.operation(ours.id).state is OperationState.SUCCEEDED
    payment = bench.payment(operation_id)
    assert (payment.refunded_minor, payment.refund_reserved_minor) == (4_000, 0)
    bench.assert_history_is_whole(operation_id)


def test_our_own_pending_refund_is_polled_without_any_webhook(bench: Hooked) -> None:
    """None arrives: our own asking ends it."""
    operation_id = paid(bench, payment_method_id="pm_card_pendingRefund")
    ours = ask_refund(bench, operation_id, 4_000).operation
    assert ours is not None
    assert isinstance(bench.attempt(ours.id), Waiting)
    (made,) = bench.simulator.refunds(operation_id=str(ours.id))
    bench.simulator.act("refund", refund=made["id"], status="failed")
    bench.make_due(ours.id)
    assert bench.recover() == [ours.id]
    payment = bench.payment(operation_id)
    assert (payment.status, payment.refund_reserved_minor) == (Status.SUCCEEDED, 0)
    assert bench.announced()[-1] == "refund-failed"
    bench.assert_history_is_whole(operation_id)


# --- disputes ---


@pytest.mark.parametrize(
    "order", list(itertools.permutations((DISPUTED, DISPUTE_MOVED, DISPUTE_CLOSED))), ids=str
)
def test_a_dispute_ends_right_in_any_order(bench: Hooked, order: tuple[str, ...]) -> None:
    """All webhooks come after it was lost, in any order and twice: its last status is told once."""
    operation_id = paid(bench)
    opened = dispute(bench, operation_id, reason="product_not_received")
    moved = bench.simulator.act("dispute/update", dispute=opened["id"], status="under_review")
    closed = bench.simulator.act("dispute/close", dispute=opened["id"], status="lost")
    things = {DISPUTED: opened, DISPUTE_MOVED: moved, DISPUTE_CLOSED: closed}
    for kind in order + order:
        assert bench.hear(kind, things[kind]).state is InboxState.PROCESSED
    payment = bench.payment(operation_id)
    assert payment.dispute == {"id": opened["id"], "reason": "product_not_received", "status": "lost"}
    assert payment.status is Status.SUCCEEDED
    assert bench.announced().count("payment-disputed") == 1
    bench.assert_history_is_whole(operation_id)


def test_each_step_of_a_dispute_is_announced(bench: Hooked) -> None:
    """As it goes: opened, under review, won."""
    operation_id = paid(bench)
    opened = dispute(bench, operation_id)
    bench.hear(DISPUTED, opened)
    for endpoint, status, kind in (
        ("update", "under_review", DISPUTE_MOVED),
        ("close", "won", DISPUTE_CLOSED),
    ):
        thing = bench.simulator.act(f"dispute/{endpoint}", dispute=opened["id"], status=status)
        bench.hear(kind, thing)
        bench.hear(kind, thing)
    told = [row.payload["disputeStatus"] for row in bench.outbox() if row.type == "payment-disputed"]
    assert told == ["needs_response", "under_review", "won"]
    bench.assert_history_is_whole(operation_id)


# --- what finds no payment, and what fails ---


def figures(bench: Hooked) -> dict[str, float]:
    """The inbox as an operator's metrics show it."""
    families = Figures(bench.sessions, connect_redis(bench.settings.redis_url)).collect()
    return {
        sample.labels["state"]: sample.value
        for family in families
        if family.name == "payment_inbox"
        for sample in family.samples
    }


def run(*arguments: str, status: int = 0) -> str:
    """Run `payment-worker webhooks` as an operator does and return what it prints."""
    command = [program("payment-worker"), "webhooks", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout


def test_anothers_object_is_unmatched_at_once(bench: Hooked) -> None:
    """A charge or an intent without our ids is another system's on the same account; it is shown."""
    for kind in ("payment_intent.succeeded", REFUNDED):
        assert bench.hear(kind, {"id": "pi_x", "payment_intent": "pi_x"}).state is InboxState.UNMATCHED
    assert figures(bench) == {"due": 0, "unmatched": 2, "failed": 0}
    assert "pi_x" in run("list", "--state", "unmatched")
    assert bench.gateway.looked_up == []


def test_a_webhook_that_was_too_early_for_too_long_can_be_replayed(bench: Hooked) -> None:
    """A dashboard refund of a charge whose answer was lost finds no payment, until we know the charge."""
    operation_id = bench.order(10_000)
    bench.attempt(operation_id, fault="lost_response")
    charge = bench.simulator.charges(operation_id=str(operation_id))[0]
    refund = bench.simulator.act("dashboard/refund", payment_intent=charge["payment_intent"], amount=4_000)
    message_id = bench.deliver(CREATED, refund)
    for _ in range(MAX_LOOKS - 1):
        bench.drain()
        assert bench.message(message_id).state is InboxState.RECEIVED
    bench.drain()
    assert bench.message(message_id).state is InboxState.UNMATCHED
    bench.attempt(operation_id)
    assert message_id in run("list")
    assert run("replay", "--state", "unmatched") == f"due again: {message_id}\n"
    bench.drain()
    assert bench.message(message_id).state is InboxState.PROCESSED
    assert bench.payment(operation_id).refunded_minor == 4_000
    bench.assert_history_is_whole(operation_id)


def test_what_cannot_be_processed_is_given_up_and_can_be_replayed(bench: Hooked) -> None:
    """An object that the gateway does not have: tried often, then shown, and again when asked for."""
    operation_id = bench.order()
    message_id = bench.deliver("payment_intent.succeeded", bench.intent(operation_id), id="pi_of_nobody")
    for number in range(MAX_FAILURES):
        assert bench.message(message_id).state is InboxState.RECEIVED, number
        bench.drain()
    message = bench.message(message_id)
    assert (message.state, message.attempts) == (InboxState.FAILED, MAX_FAILURES)
    assert message.error
    assert figures(bench) == {"due": 0, "unmatched": 0, "failed": 1}
    assert message_id in run("list", "--state", "failed")
    run("replay", message_id)
    assert figures(bench)["due"] == 1
    bench.drain()
    assert (bench.message(message_id).state, bench.message(message_id).attempts) == (InboxState.RECEIVED, 1)
    bench.assert_history_is_whole(operation_id)


def test_a_replay_of_nothing_says_so(bench: Hooked) -> None:
    """Unknown ids are named; ids or a state must be given, not both."""
    assert bench.drain() == 0
    run("replay", "evt_unknown", status=1)
    run("replay", status=2)
    run("replay", "evt_1", "--state", "failed", status=2)
    assert run("list") == "nothing waits for a person\n"


def test_a_gateway_that_is_away_fails_no_webhook(bench: Hooked) -> None:
    """However long it lasts: they wait, and go on when it answers."""
    operation_id = paid(bench)
    ids = [bench.deliver(CREATED, dashboard_refund(bench, operation_id, 1_000)) for _ in range(3)]
    reachable, bench.gateway.inner = bench.gateway.inner, bench.stripe(url="http://127.0.0.1:9")
    for _ in range(MAX_FAILURES + 5):
        bench.drain()
    assert {bench.message(each).state for each in ids} == {InboxState.RECEIVED}
    with pytest.raises(GatewayUnavailable):
        bench.worker.gate.look(lambda: None)
    bench.clock.move(600)
    bench.gateway.inner = reachable
    bench.drain()
    assert {bench.message(each).state for each in ids} == {InboxState.PROCESSED}
    assert bench.payment(operation_id).refunded_minor == 3_000
    bench.assert_history_is_whole(operation_id)
