"""Every outcome that the gateway can give, and that no fault makes a second charge or loses a payment."""

import socket
import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest

from payment_worker.locking import LOOK, record_locked, taken_out
from payment_worker.outcomes import ABANDONED_AFTER
from payment_worker.processing import KEY_LIFETIME
from shared.gateways import Failed, GatewayUnavailable, Misconfigured, Succeeded, Transient, Unknown, Waiting
from shared.payments import OperationKind, OperationState, Status
from shared.rows import Overwritten
from shared.settings import Settings
from tests.worker import Bench, make_bench

ABSENCE = timedelta(seconds=600)
BEYOND = timedelta(seconds=1)
FIRST_PAUSE_S = 0.75, 1.25  # a second, spread by a quarter; the lease would be far longer


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    """A worker on this test's own database."""
    with make_bench(settings) as bench:
        yield bench


def assert_paid_once(bench: Bench, operation_id: uuid.UUID) -> None:
    """The payment has succeeded, by the only charge that the simulator made for it."""
    (charge,) = bench.simulator.charges(operation_id=str(operation_id))
    payment, operation = bench.payment(operation_id), bench.operation(operation_id)
    assert (charge["status"], charge["amount_captured"]) == ("succeeded", payment.amount_minor)
    assert (payment.status, payment.transaction_id) == (Status.SUCCEEDED, charge["id"])
    assert operation.state is OperationState.SUCCEEDED
    assert not operation.needs_review
    bench.assert_history_is_whole(operation_id)


def closed_port_url() -> str:
    """The address of a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


# --- definite answers ---


@pytest.mark.parametrize(
    ("amount_minor", "method", "error_code", "reason", "message"),
    [
        (1013, None, "CARD_DECLINED", "card_declined", "Your card was declined"),
        (1066, None, "INSUFFICIENT_FUNDS", "insufficient_funds", "Insufficient funds on card"),
        (99_999_999, None, "AMOUNT_TOO_LARGE", "processor_error", "Amount exceeds maximum limit"),
        (1099, None, "PROCESSOR_TIMEOUT", "timeout", "Payment processor timeout"),
        (
            2500,
            "pm_card_chargeDeclined",
            "GENERIC_DECLINE",
            "generic_decline",
            "Your card was declined.",
        ),
        (
            2500,
            "pm_card_chargeDeclinedInsufficientFunds",
            "INSUFFICIENT_FUNDS",
            "insufficient_funds",
            "Your card has insufficient funds.",
        ),
        (
            2500,
            "pm_card_chargeDeclinedExpiredCard",
            "EXPIRED_CARD",
            "expired_card",
            "Your card has expired.",
        ),
    ],
)
def test_a_decline_fails_the_payment(
    bench: Bench, amount_minor: int, method: str | None, error_code: str, reason: str, message: str
) -> None:
    """The bank's no ends the payment at once, with the code, the reason and the words of the contract."""
    operation_id = bench.order(amount_minor, payment_method_id=method)
    assert isinstance(bench.attempt(operation_id), Failed)
    payment = bench.payment(operation_id)
    assert (payment.status, payment.captured_minor) == (Status.FAILED, 0)
    assert (payment.error_code, payment.failure_reason, payment.error_message) == (
        error_code,
        reason,
        message,
    )
    assert bench.operation(operation_id).state is OperationState.FAILED
    assert bench.outbox()[-1].type == "payment-failed"
    assert bench.successes(operation_id) == []
    assert bench.worker.process(operation_id, 1) is None
    bench.assert_history_is_whole(operation_id)


def test_an_unknown_payment_method_fails_the_payment(bench: Bench) -> None:
    """What the gateway refuses to begin is final too, in the gateway's own words."""
    operation_id = bench.order(payment_method_id="pm_of_nobody")
    assert isinstance(bench.attempt(operation_id), Failed)
    payment = bench.payment(operation_id)
    assert (payment.status, payment.error_code) == (Status.FAILED, "RESOURCE_MISSING")
    assert payment.error_message == "No such PaymentMethod: 'pm_...body'"
    assert bench.simulator.charges(operation_id=str(operation_id)) == []
    bench.assert_history_is_whole(operation_id)


# --- the customer has to act ---


def authenticate(bench: Bench, operation_id: uuid.UUID, *, succeed: bool) -> None:
    """Let the customer pass or fail the bank's question."""
    intent = bench.payment(operation_id).gateway_ref
    bench.simulator._call("POST", "authenticate", json={"payment_intent": intent, "succeed": succeed})


@pytest.mark.parametrize("return_url", [None, "https://shop.example/back"])
def test_a_card_that_asks_the_customer_waits(bench: Bench, return_url: str | None) -> None:
    """The payment says what the client must do, takes and announces nothing, and recovery will ask again."""
    operation_id = bench.order(payment_method_id="pm_card_authenticationRequired", return_url=return_url)
    with bench.pausing(operation_id, *FIRST_PAUSE_S):
        assert isinstance(bench.attempt(operation_id), Waiting)
    payment, operation = bench.payment(operation_id), bench.operation(operation_id)
    assert (payment.status, operation.state) == (Status.REQUIRES_ACTION, OperationState.REQUIRES_ACTION)
    assert payment.next_action is not None
    if return_url:
        assert payment.next_action["type"] == "redirect"
        assert str(payment.gateway_ref) in payment.next_action["redirectUrl"]
    else:
        assert payment.next_action["type"] == "confirm"
        assert payment.next_action["clientSecret"].startswith(f"{payment.gateway_ref}_secret_")
    assert [row.type for row in bench.outbox()] == ["payment-requested", "payment-action-required"]
    bench.assert_history_is_whole(operation_id)


def test_recovery_asks_how_an_open_authentication_stands(bench: Bench) -> None:
    """It looks the charge up, never charges again, and adds nothing to the history while nothing is new."""
    operation_id = bench.order(payment_method_id="pm_card_authenticationRequired")
    bench.attempt(operation_id)
    before = bench.events(operation_id)
    bench.make_due(operation_id)
    with bench.pausing(operation_id, *(2 * each for each in FIRST_PAUSE_S)):
        assert bench.recover() == [operation_id]
    assert bench.gateway.looked_up == [bench.payment(operation_id).gateway_ref]
    assert len(bench.gateway.keys) == 1
    assert bench.events(operation_id) == before


def test_a_passed_authentication_is_found_and_recorded(bench: Bench) -> None:
    """The customer has paid at the bank's page; recovery finds the success."""
    operation_id = bench.order(payment_method_id="pm_card_authenticationRequired")
    bench.attempt(operation_id)
    authenticate(bench, operation_id, succeed=True)
    bench.make_due(operation_id)
    assert bench.recover() == [operation_id]
    assert len(bench.gateway.keys) == 1
    assert bench.payment(operation_id).next_action is None
    assert bench.outbox()[-1].type == "payment-succeeded"
    assert_paid_once(bench, operation_id)


def test_a_failed_authentication_leaves_the_payment_payable(bench: Bench) -> None:
    """The customer holds the client secret: the order is free only when Stripe has cancelled the intent."""
    operation_id = bench.order(payment_method_id="pm_card_authenticationRequired")
    bench.attempt(operation_id)
    authenticate(bench, operation_id, succeed=False)
    bench.make_due(operation_id)
    assert bench.recover() == [operation_id]
    payment = bench.payment(operation_id)
    assert payment.status is Status.REQUIRES_ACTION
    assert payment.next_action is not None
    assert payment.next_action["type"] == "confirm"

    bench.stripe()._client.v1.payment_intents.cancel(str(payment.gateway_ref))
    bench.make_due(operation_id)
    assert bench.recover() == [operation_id]
    payment = bench.payment(operation_id)
    assert (payment.status, payment.next_action) == (Status.CANCELLED, None)
    assert bench.outbox()[-1].type == "payment-cancelled"
    assert bench.successes(operation_id) == []
    bench.assert_history_is_whole(operation_id)


def test_without_the_customer_present_authentication_is_a_decline(bench: Bench) -> None:
    """Nobody is there to act on an off-session charge."""
    operation_id = bench.order(payment_method_id="pm_card_authenticationRequired", off_session=True)
    assert isinstance(bench.attempt(operation_id), Failed)
    assert bench.payment(operation_id).error_code == "AUTHENTICATION_REQUIRED"


# --- nothing was done: try again ---


@pytest.mark.parametrize("fault", ["rate_limit", "lock_timeout"])
def test_a_charge_that_was_put_off_is_tried_again(bench: Bench, fault: str) -> None:
    """The same key again, after a delay that is written down before anything else can go wrong."""
    operation_id = bench.order()
    with bench.pausing(operation_id, *FIRST_PAUSE_S):
        assert isinstance(bench.attempt(operation_id, fault=fault), Transient)
    operation = bench.operation(operation_id)
    assert (operation.state, operation.lease_until) == (OperationState.IN_FLIGHT, None)
    assert bench.payment(operation_id).status is Status.PROCESSING
    assert bench.simulator.charges(operation_id=str(operation_id)) == []
    bench.make_due(operation_id)
    assert bench.recover() == [operation_id]
    assert bench.gateway.keys == [str(operation_id)] * 2
    assert_paid_once(bench, operation_id)


def test_without_a_connection_nothing_was_done(bench: Bench) -> None:
    """A gateway that cannot be reached delays the payment and does not fail it."""
    operation_id = bench.order()
    reachable, bench.gateway.inner = bench.gateway.inner, bench.stripe(url=closed_port_url())
    assert isinstance(bench.attempt(operation_id), Transient)
    assert bench.payment(operation_id).status is Status.PROCESSING
    bench.gateway.inner = reachable
    bench.make_due(operation_id)
    assert bench.recover() == [operation_id]
    assert_paid_once(bench, operation_id)


# --- nobody can tell what was done: find out, charge once ---


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


def test_two_charges_found_are_flagged(bench: Bench) -> None:
    """If two attempts have charged after all, the first is the payment's and an operator gets the second."""
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
    bench.assert_history_is_whole(operation_id)


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


# --- the gateway rejects us ---


def test_a_rejected_key_is_an_operators_and_heals_when_mended(bench: Bench) -> None:
    """Our bad key fails no payment: it is flagged, tried rarely, and goes through once the key is right."""
    operation_id = bench.order()
    right, bench.gateway.inner = bench.gateway.inner, bench.stripe(key="rk_test_revoked")
    assert isinstance(bench.attempt(operation_id), Misconfigured)
    operation = bench.operation(operation_id)
    assert operation.needs_review
    assert operation.finished_at is None
    assert bench.payment(operation_id).status is Status.PROCESSING
    assert bench.events(operation_id)[-1] == "gateway misconfigured"
    assert bench.recover() == []
    bench.gateway.inner = right
    bench.make_due(operation_id)
    assert bench.recover() == [operation_id]
    assert_paid_once(bench, operation_id)


def test_a_mended_key_ends_the_review_of_a_payment_that_waits(bench: Bench) -> None:
    """The customer may take a day: the operator's flag goes when the gateway takes our requests again."""
    operation_id = bench.order(payment_method_id="pm_card_authenticationRequired")
    right, bench.gateway.inner = bench.gateway.inner, bench.stripe(key="rk_test_revoked")
    bench.attempt(operation_id)
    assert bench.operation(operation_id).needs_review
    bench.gateway.inner = right
    assert isinstance(bench.attempt(operation_id), Waiting)
    assert not bench.operation(operation_id).needs_review
    assert "review no longer needed" in bench.events(operation_id)

    bench.gateway.inner = bench.stripe(key="rk_test_revoked")
    assert isinstance(bench.attempt(operation_id), Misconfigured)
    assert bench.operation(operation_id).needs_review
    bench.gateway.inner = right
    bench.attempt(operation_id)
    assert not bench.operation(operation_id).needs_review
    bench.assert_history_is_whole(operation_id)


def test_a_key_used_for_something_else_is_an_operators(bench: Bench) -> None:
    """An idempotency mismatch says that we are wrong, not that the payment failed."""
    operation_id, other = bench.order(), bench.order(2600)
    bench.attempt(other, fault="rate_limit")
    bench.gateway.inner.send(OperationKind.CHARGE, bench.operation(other).request or {}, str(operation_id))
    assert isinstance(bench.attempt(operation_id), Misconfigured)
    assert bench.operation(operation_id).needs_review
    assert bench.payment(operation_id).status is Status.PROCESSING


def test_another_amount_than_asked_is_an_operators(bench: Bench) -> None:
    """Money was taken, but not what is owed: nothing is announced before somebody has looked."""
    operation_id = bench.order()
    bench.attempt(operation_id, fault="rate_limit")
    claim = bench.claim(operation_id, 1)
    outcome = bench.gateway.inner.send(
        OperationKind.CHARGE,
        {**(claim.operation.request or {}), "amount": 2600},
        f"other than {operation_id}",
    )
    assert isinstance(outcome, Succeeded)
    bench.worker.record(claim, outcome)
    assert bench.operation(operation_id).needs_review
    assert bench.payment(operation_id).status is Status.PROCESSING
    assert [row.type for row in bench.outbox()] == ["payment-requested"]
    assert bench.recover() == []
    bench.assert_history_is_whole(operation_id)


# --- what was read without a lock ---


def test_an_outcome_over_rows_that_others_have_changed_is_not_dropped_in_silence(bench: Bench) -> None:
    """Whoever records has locked what it read; where it has not, nothing is written and it hears of it."""
    operation_id = bench.order()
    with bench.sessions() as session:
        payment, operation, at, _ = taken_out(session.execute(LOOK, {"operation_id": operation_id}).one())
    bench.attempt(operation_id)
    version = bench.payment(operation_id).version
    late = Failed(error_code="GENERIC_DECLINE", message="Declined", reason="generic_decline")
    payment.status = Status.PROCESSING
    with pytest.raises(Overwritten), bench.sessions.begin() as session:
        record_locked(session, payment, operation, late, at, abandon_after=ABANDONED_AFTER)
    assert bench.payment(operation_id).version == version
    assert_paid_once(bench, operation_id)
