"""Every outcome that the gateway can give, and that no fault makes a second charge or loses a payment."""

import socket
import uuid

import pytest

from payment_worker.locking import LOOK, record_locked, taken_out
from payment_worker.outcomes import ABANDONED_AFTER
from shared.gateways import Failed, Misconfigured, Succeeded, Transient, Waiting
from shared.payments import OperationKind, OperationState, Status
from shared.rows import Overwritten
from tests.worker import Bench

FIRST_PAUSE_S = 0.75, 1.25  # a second, spread by a quarter; the lease would be far longer


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
