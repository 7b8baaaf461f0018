"""Webhooks about charges and holds: in any order, twice, early or never, all end where Stripe has it."""

import itertools
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from payment_worker import inbox, webhooks
from shared.commands.cancel import cancel_payment
from shared.commands.create import CreatePayment, create_payment
from shared.gateways import Authorized, Cancelled, Refunded, Succeeded, Waiting
from shared.models import InboxState
from shared.money import Money
from shared.payments import CaptureMethod, OperationState, Status
from shared.settings import Settings
from tests.hooked import ORIGIN, Hooked, make_hooked
from tests.webhooks import event, send
from tests.worker import NOT_DUE_S

ASKS = "pm_card_authenticationRequired"
PAID, FAILED = "payment_intent.succeeded", "payment_intent.payment_failed"
HELD, CANCELED = "payment_intent.amount_capturable_updated", "payment_intent.canceled"
ACTION, PROCESSING = "payment_intent.requires_action", "payment_intent.processing"


@pytest.fixture
def bench(settings: Settings) -> Iterator[Hooked]:
    """A worker and an API on this test's own database."""
    with make_hooked(settings) as made:
        yield made


def waiting(bench: Hooked, amount_minor: int = 10_000, *, hold: bool = False) -> uuid.UUID:
    """Make a payment whose customer has to act."""
    method = CaptureMethod.MANUAL if hold else CaptureMethod.AUTOMATIC
    operation_id = bench.order(amount_minor, payment_method_id=ASKS, capture_method=method)
    assert isinstance(bench.attempt(operation_id), Waiting)
    return operation_id


def held(bench: Hooked, amount_minor: int = 10_000) -> uuid.UUID:
    """Make a hold."""
    operation_id = bench.order(amount_minor, capture_method=CaptureMethod.MANUAL)
    assert isinstance(bench.attempt(operation_id), Authorized)
    return operation_id


def customer(bench: Hooked, operation_id: uuid.UUID, *, succeed: bool) -> None:
    """Let the customer pass or fail the bank's question."""
    bench.simulator.act(
        "authenticate", payment_intent=bench.payment(operation_id).gateway_ref, succeed=succeed
    )


def test_what_we_know_already_asks_nobody(bench: Hooked) -> None:
    """Of most payments a webhook tells nothing new: no call, no history row, and it is done."""
    operation_id = bench.order()
    bench.attempt(operation_id)
    before = bench.events(operation_id)
    for kind in (PAID, PROCESSING, ACTION, FAILED, HELD, CANCELED):
        message = bench.hear(kind, bench.intent(operation_id))
        assert (message.state, message.payment_id) == (InboxState.PROCESSED, bench.payment(operation_id).id)
    assert bench.gateway.looked_up == []
    assert bench.events(operation_id) == before


@pytest.mark.parametrize("order", list(itertools.permutations((ACTION, PROCESSING, PAID))), ids=str)
def test_a_customer_who_paid_is_known_in_any_order(bench: Hooked, order: tuple[str, ...]) -> None:
    """Whatever comes first, and each twice: one success, one event."""
    operation_id = waiting(bench)
    customer(bench, operation_id, succeed=True)
    for kind in order + order:
        assert bench.hear(kind, bench.intent(operation_id)).state is InboxState.PROCESSED
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    assert bench.operation(operation_id).state is OperationState.SUCCEEDED
    assert bench.announced().count("payment-succeeded") == 1
    assert bench.timeline(operation_id)[-1].actor == "stripe webhook"
    bench.assert_history_is_whole(operation_id)


def test_a_customer_who_paid_is_known_without_any_webhook(bench: Hooked) -> None:
    """When none arrives, our own asking finds out; one that comes then is too late to matter."""
    operation_id = waiting(bench)
    customer(bench, operation_id, succeed=True)
    bench.make_due(operation_id)
    bench.recover()
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    asked = len(bench.gateway.looked_up)
    bench.hear(PAID, bench.intent(operation_id))
    assert len(bench.gateway.looked_up) == asked
    bench.assert_history_is_whole(operation_id)


def test_a_failed_try_may_be_repeated(bench: Hooked) -> None:
    """It is shown, the payment goes on waiting, and the customer may still pay with another card."""
    operation_id = waiting(bench)
    customer(bench, operation_id, succeed=False)
    bench.hear(FAILED, bench.intent(operation_id))
    payment = bench.payment(operation_id)
    assert payment.status is Status.REQUIRES_ACTION
    assert payment.failure_reason
    assert payment.next_action is not None
    bench.simulator.act("confirm", payment_intent=payment.gateway_ref, payment_method="pm_card_visa")
    bench.hear(PAID, bench.intent(operation_id))
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    assert bench.payment(operation_id).failure_reason is None
    bench.assert_history_is_whole(operation_id)


def test_a_customer_may_confirm_a_hold(bench: Hooked) -> None:
    """The money is held then, until the time that the gateway names."""
    operation_id = waiting(bench, hold=True)
    customer(bench, operation_id, succeed=True)
    bench.hear(HELD, bench.intent(operation_id))
    payment = bench.payment(operation_id)
    assert payment.status is Status.AUTHORIZED
    assert payment.expires_at is not None
    bench.assert_history_is_whole(operation_id)


def test_a_hold_cancelled_at_the_dashboard_is_cancelled_here(bench: Hooked) -> None:
    """The released money is no refund, whichever webhook of it comes first."""
    operation_id = held(bench)
    bench.simulator.act("dashboard/cancel", payment_intent=bench.payment(operation_id).gateway_ref)
    (release,) = [
        each for each in bench.simulator.refunds() if each["charge"] == bench.charge(operation_id)["id"]
    ]
    for kind, thing in (
        ("refund.created", release),
        ("charge.refunded", bench.charge(operation_id)),
        (CANCELED, bench.intent(operation_id)),
    ):
        assert bench.hear(kind, thing).state is InboxState.PROCESSED
    payment = bench.payment(operation_id)
    assert (payment.status, payment.refunded_minor, payment.captured_minor) == (Status.CANCELLED, 0, 0)
    assert bench.refunds(operation_id) == []
    assert bench.announced()[-1] == "payment-cancelled"
    bench.assert_history_is_whole(operation_id)


@pytest.mark.parametrize("first", ["capture", "release"])
def test_a_hold_captured_at_the_dashboard_is_paid_here(bench: Hooked, first: str) -> None:
    """A part was captured: only that is the money of it, and the rest that was released is no refund."""
    operation_id = held(bench)
    ref = bench.payment(operation_id).gateway_ref
    bench.simulator.act("dashboard/capture", payment_intent=ref, amount=6_000)
    (release,) = [each for each in bench.simulator.refunds() if each["payment_intent"] == ref]
    told = [
        (PAID, bench.intent(operation_id)),
        ("refund.created", release),
        ("charge.refunded", bench.charge(operation_id)),
    ]
    for kind, thing in told if first == "capture" else reversed(told):
        assert bench.hear(kind, thing).state is InboxState.PROCESSED
    payment = bench.payment(operation_id)
    assert (payment.status, payment.captured_minor, payment.refunded_minor) == (Status.SUCCEEDED, 6_000, 0)
    assert bench.refunds(operation_id) == []
    bench.assert_history_is_whole(operation_id)


def test_a_hold_that_was_captured_before_it_was_known(bench: Hooked) -> None:
    """The answer to the hold was lost, the webhook of its capture comes first: the hold did succeed."""
    operation_id = bench.order(10_000, capture_method=CaptureMethod.MANUAL)
    bench.attempt(operation_id, fault="lost_response")
    bench.change(operation_id, lease_until=None)
    charge = bench.simulator.charges(operation_id=str(operation_id))[0]
    bench.simulator.act("dashboard/capture", payment_intent=charge["payment_intent"])
    bench.hear(PAID, bench.intent(operation_id), id=charge["payment_intent"])
    assert bench.operation(operation_id).state is OperationState.SUCCEEDED
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    bench.assert_history_is_whole(operation_id)


def test_a_webhook_before_our_own_record_waits(bench: Hooked) -> None:
    """While a worker of ours has the charge in hand nobody else asks; afterwards there is nothing to ask."""
    operation_id = bench.order()
    early: list[str] = []

    def webhook() -> None:
        charge = bench.simulator.charges(operation_id=str(operation_id))[0]
        early.append(bench.deliver(PAID, bench.intent(operation_id), id=charge["payment_intent"]))
        bench.drain()
        assert bench.message(early[0]).state is InboxState.RECEIVED

    bench.gateway.after.append(webhook)
    assert isinstance(bench.attempt(operation_id), Succeeded)
    assert bench.gateway.looked_up == []
    bench.drain()
    assert bench.message(early[0]).state is InboxState.PROCESSED
    assert bench.gateway.looked_up == []
    bench.assert_history_is_whole(operation_id)


def test_a_lost_answer_is_told_by_the_webhook(bench: Hooked) -> None:
    """The charge succeeded, our answer got lost: no need to wait for the next attempt."""
    operation_id = bench.order()
    bench.attempt(operation_id, fault="lost_response")
    charge = bench.simulator.charges(operation_id=str(operation_id))[0]
    bench.hear(PAID, bench.intent(operation_id), id=charge["payment_intent"])
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    assert len(bench.gateway.keys) == 1
    bench.assert_history_is_whole(operation_id)


def test_a_decline_whose_answer_was_lost_stays_a_decline(bench: Hooked) -> None:
    """Its webhook must not offer the customer a payment that has failed: our own next attempt says it."""
    operation_id = bench.order(payment_method_id="pm_card_chargeDeclined")
    bench.attempt(operation_id, fault="lost_response")
    charge = bench.simulator.charges(operation_id=str(operation_id))[0]
    bench.hear(FAILED, bench.intent(operation_id), id=charge["payment_intent"])
    assert bench.payment(operation_id).status is Status.PROCESSING
    bench.attempt(operation_id)
    assert bench.payment(operation_id).status is Status.FAILED
    bench.assert_history_is_whole(operation_id)


def test_a_success_on_a_cancelled_payment_is_refunded_and_flagged(bench: Hooked) -> None:
    """However it came about: the money goes back by itself, once, and a person is told."""
    operation_id = bench.order()
    cancel_payment(bench.sessions, bench.payment(operation_id).id, None, ORIGIN, recovery_after_s=NOT_DUE_S)
    paid = bench.send_behind_our_back(operation_id)
    assert isinstance(paid, Succeeded)
    for _ in range(3):
        bench.hear(PAID, bench.intent(operation_id), id=paid.gateway_ref)
    payment = bench.payment(operation_id)
    assert (payment.status, payment.captured_minor) == (Status.CANCELLED, payment.amount_minor)
    assert bench.operation(operation_id).needs_review
    (refund,) = bench.refunds(operation_id)
    assert isinstance(bench.attempt(refund.id), Refunded)
    assert bench.payment(operation_id).refunded_minor == payment.amount_minor
    assert bench.payment(operation_id).status is Status.CANCELLED
    bench.assert_history_is_whole(operation_id)


def test_a_hold_on_a_cancelled_payment_is_released_once(bench: Hooked) -> None:
    """However often it is told."""
    operation_id = bench.order(capture_method=CaptureMethod.MANUAL)
    cancel_payment(bench.sessions, bench.payment(operation_id).id, None, ORIGIN, recovery_after_s=NOT_DUE_S)
    hold = bench.send_behind_our_back(operation_id)
    assert isinstance(hold, Authorized)
    for _ in range(3):
        bench.hear(HELD, bench.intent(operation_id), id=hold.gateway_ref)
    assert isinstance(bench.attempt(bench.open_operation(operation_id)), Cancelled)
    assert bench.hear(CANCELED, bench.intent(operation_id), id=hold.gateway_ref).state is InboxState.PROCESSED
    assert bench.operation(operation_id).needs_review
    bench.assert_history_is_whole(operation_id)


def test_a_second_success_is_refunded_once(bench: Hooked) -> None:
    """Two charges for one payment: the second goes back, whether its webhook comes once or thrice."""
    operation_id = bench.order()
    bench.attempt(operation_id)
    second = bench.send_behind_our_back(operation_id, key=f"{operation_id}:2")
    assert isinstance(second, Succeeded)
    for _ in range(3):
        bench.hear(PAID, bench.intent(operation_id), id=second.gateway_ref)
    (refund,) = bench.refunds(operation_id)
    assert refund.target_ref == second.gateway_ref
    assert isinstance(bench.attempt(refund.id), Refunded)
    made = [each for each in bench.simulator.refunds() if each["payment_intent"] == second.gateway_ref]
    bench.hear("refund.created", made[0])
    payment = bench.payment(operation_id)
    assert (payment.status, payment.refunded_minor) == (Status.SUCCEEDED, 0)
    assert len(bench.refunds(operation_id)) == 1
    bench.assert_history_is_whole(operation_id)


def test_a_hold_confirmed_while_it_is_cancelled(bench: Hooked) -> None:
    """The cancel that is under way is enough: no second one is asked for, and it lets the hold go."""
    operation_id = waiting(bench, hold=True)
    requested = cancel_payment(
        bench.sessions, bench.payment(operation_id).id, None, ORIGIN, recovery_after_s=NOT_DUE_S
    )
    customer(bench, operation_id, succeed=True)
    assert bench.hear(HELD, bench.intent(operation_id)).state is InboxState.PROCESSED
    assert bench.payment(operation_id).status is Status.AUTHORIZED
    assert requested.operation is not None
    assert isinstance(bench.attempt(requested.operation.id), Cancelled)
    assert bench.payment(operation_id).status is Status.CANCELLED
    bench.assert_history_is_whole(operation_id)


def test_a_poll_finds_a_hold_while_it_is_cancelled(bench: Hooked) -> None:
    """The same without a webhook: our own poll sees the hold while the cancel waits."""
    operation_id = waiting(bench, hold=True)
    cancel_payment(bench.sessions, bench.payment(operation_id).id, None, ORIGIN, recovery_after_s=NOT_DUE_S)
    customer(bench, operation_id, succeed=True)
    assert isinstance(bench.attempt(operation_id), Authorized)
    assert isinstance(bench.attempt(bench.open_operation(operation_id)), Cancelled)
    assert bench.payment(operation_id).status is Status.CANCELLED
    bench.assert_history_is_whole(operation_id)


def test_an_older_truth_does_not_overwrite_a_newer(bench: Hooked) -> None:
    """The payment changes while the gateway is asked: it is asked again before anything is recorded."""
    operation_id = waiting(bench)
    customer(bench, operation_id, succeed=False)

    def pay_meanwhile() -> None:
        ref = bench.payment(operation_id).gateway_ref
        bench.simulator.act("confirm", payment_intent=ref, payment_method="pm_card_visa")
        bench.attempt(operation_id)

    bench.gateway.after.append(pay_meanwhile)
    bench.hear(FAILED, bench.intent(operation_id))
    assert len(bench.gateway.looked_up) == 3
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    assert bench.payment(operation_id).failure_reason is None
    bench.assert_history_is_whole(operation_id)


def test_two_workers_record_one_fact_once(bench: Hooked) -> None:
    """Webhooks of one success that are worked off at once: one success, one event, nothing left."""
    operation_id = waiting(bench)
    customer(bench, operation_id, succeed=True)
    ids = [bench.deliver(PAID, bench.intent(operation_id)) for _ in range(6)]
    with ThreadPoolExecutor(6) as workers:
        list(workers.map(lambda _: webhooks.drain(bench.worker), range(6)))
    bench.drain()
    assert {bench.message(each).state for each in ids} == {InboxState.PROCESSED}
    assert bench.announced().count("payment-succeeded") == 1
    bench.assert_history_is_whole(operation_id)


def test_a_lapsed_batch_is_taken_again(bench: Hooked) -> None:
    """A worker that died with webhooks in hand loses none: they come back."""
    operation_id = waiting(bench)
    customer(bench, operation_id, succeed=True)
    message_id = bench.deliver(PAID, bench.intent(operation_id))
    assert [each.message_id for each in inbox.take(bench.sessions)] == [message_id]
    assert webhooks.drain(bench.worker) == 0
    due_at = bench.message(message_id).next_attempt_at
    assert due_at is not None
    assert due_at - bench.message(message_id).received_at >= timedelta(seconds=59)
    bench.drain()
    assert bench.payment(operation_id).status is Status.SUCCEEDED


def test_a_payment_that_nobody_has_charged_yet_holds_up_no_webhook(bench: Hooked) -> None:
    """Its charge may be lost with a database: what tells of it waits for a person, the rest goes on."""
    made = create_payment(
        bench.sessions,
        CreatePayment(money=Money(10_000, "USD"), customer_id="ada", unasked=True),
        ORIGIN,
        simulated=True,
        recovery_after_s=NOT_DUE_S,
    )
    labels = {"payment_id": str(made.payment.id), "operation_id": str(uuid.uuid4())}
    early = [bench.deliver(kind, {"id": "pi_lost", "metadata": labels}) for kind in (PAID, CANCELED)]
    operation_id = waiting(bench)
    customer(bench, operation_id, succeed=True)
    assert bench.hear(PAID, bench.intent(operation_id)).state is InboxState.PROCESSED
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    for _ in range(webhooks.MAX_LOOKS):
        bench.drain()
    assert [bench.message(each).state for each in early] == [InboxState.UNMATCHED] * 2


def test_what_was_ignored_may_be_replayed(bench: Hooked) -> None:
    """Also when it is about something without an id; it is ignored again, and nothing waits behind it."""
    told = event("balance.available")
    del told["data"]["object"]["id"]
    assert send(bench.api, told).status == 200
    assert inbox.replay(bench.sessions, [told["id"]]) == [told["id"]]
    bench.drain()
    assert bench.message(told["id"]).state is InboxState.IGNORED
