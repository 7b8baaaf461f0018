"""The Stripe adapter: our charges in Stripe's words, and Stripe's answers and errors in ours."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import stripe

from shared.gateways import Charge, Failed, GatewayUnavailable, Misconfigured, Outcome, Succeeded, Waiting
from shared.gateways.stripe_amounts import from_gateway_minor, to_gateway_minor
from shared.gateways.stripe_errors import classify
from shared.gateways.stripe_http import NeverSent, PooledClient
from shared.telemetry import get_logger

# Only the simulator has a card for those who bring none.
SIMULATED_CARD = "pm_card_visa"
PAGE = 100
INTENTS = "/v1/payment_intents"

log = get_logger(__name__)


class StripeGateway:
    """Stripe, or a simulator that speaks its language at `api_url`."""

    def __init__(self, secret_key: str, api_url: str = "", *, pool_size: int = 10) -> None:
        """Make the process's one client, which keeps up to `pool_size` connections; no call is made yet."""
        self.simulated = bool(api_url)
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_url} if api_url else {},
            http_client=PooledClient(pool_size),
            max_network_retries=0,
        )

    def freeze(self, charge: Charge) -> dict[str, Any]:
        """The parameters of the PaymentIntent that makes this charge, in one call."""
        token = charge.payment_method_id or (SIMULATED_CARD if self.simulated else None)
        parameters: dict[str, Any] = {
            "amount": to_gateway_minor(charge.money),
            "currency": charge.money.currency.lower(),
            "capture_method": "automatic",
            "metadata": {"payment_id": charge.payment_id, "operation_id": charge.operation_id},
            "expand": ["latest_charge"],
        }
        if charge.order_id:
            parameters["metadata"]["order_id"] = charge.order_id
        if token:
            parameters |= {"confirm": True, "payment_method": token, "off_session": charge.off_session}
        if charge.return_url:
            # Redirect-capable methods may be used: the customer has somewhere to come back to.
            parameters["automatic_payment_methods"] = {"enabled": True}
            if token:
                parameters["return_url"] = charge.return_url
        else:
            parameters["payment_method_types"] = ["card"]
        return parameters

    def charge(self, parameters: Mapping[str, Any], key: str) -> Outcome:
        """Create and confirm the PaymentIntent under the idempotency key `key`."""
        try:
            return _outcome(self._call("post", INTENTS, idempotency_key=key, **parameters))
        except stripe.StripeError as error:
            return _outcome_of(error)

    def look_up(self, gateway_ref: str) -> Outcome:
        """Retrieve a PaymentIntent and read how it stands."""
        try:
            intent = self._call("get", f"{INTENTS}/{gateway_ref}", expand=["latest_charge"])
        except stripe.StripeError as error:
            outcome = _outcome_of(error)
            # Not finding what we know to be there says something about our account, not about the payment.
            return Misconfigured(reason=outcome.reason) if isinstance(outcome, Failed) else outcome
        if intent["status"] == "requires_payment_method":
            # A try has failed, but the customer holds the client secret: until the intent is cancelled
            # it can still be paid.
            return Waiting(gateway_ref=gateway_ref, next_action=_next_action(intent))
        return _outcome(intent)

    def _call(self, method: str, path: str, **parameters: Any) -> dict[str, Any]:
        """Call and return the answer as it came: making it the SDK's objects would cost as much again."""
        answer = self._client.raw_request(method, path, **parameters)
        return cast("dict[str, Any]", answer.data)

    def find(self, operation_ids: Sequence[str], since: datetime) -> Mapping[str, list[Outcome]]:
        """List the PaymentIntents created since then, once, and match our ids in their metadata.

        A list and not a search: Stripe's search lags and is not offered everywhere.
        """
        found: dict[str, list[Outcome]] = {each: [] for each in operation_ids}
        try:
            page = self._client.v1.payment_intents.list(
                {
                    "created": {"gte": int(since.timestamp())},
                    "limit": PAGE,
                    "expand": ["data.latest_charge"],
                }
            )
            for intent in page.auto_paging_iter():
                document = intent.to_dict()
                operation_id = (document.get("metadata") or {}).get("operation_id")
                if operation_id in found:
                    found[operation_id].append(_outcome(document))
        except stripe.StripeError as error:
            raise GatewayUnavailable(f"{type(error).__name__}: {error.http_status}") from error
        return found


def _outcome_of(error: stripe.StripeError) -> Outcome:
    headers = error.headers or {}
    body = error.json_body
    details = body.get("error") if isinstance(body, dict) else None
    outcome = classify(
        error.http_status,
        details if isinstance(details, dict) else {},
        replayed=headers.get("Idempotent-Replayed") == "true",
        sent=not isinstance(error, NeverSent),
    )
    log.info("gateway error", outcome=type(outcome).__name__, http_status=error.http_status, code=error.code)
    return outcome


def _outcome(intent: dict[str, Any]) -> Outcome:
    """Read a PaymentIntent: https://docs.stripe.com/payments/paymentintents/lifecycle."""
    status, ref = intent["status"], intent["id"]
    if status == "succeeded":
        return _succeeded(intent)
    if status == "canceled":
        return Failed(
            error_code="CANCELED", message="The payment was cancelled", reason="canceled", gateway_ref=ref
        )
    if status == "requires_payment_method" and intent.get("last_payment_error"):
        return classify(
            402, {**intent["last_payment_error"], "payment_intent": intent}, replayed=False, sent=True
        )
    return Waiting(gateway_ref=ref, next_action=_next_action(intent))


def _succeeded(intent: dict[str, Any]) -> Succeeded:
    charge = intent["latest_charge"]
    balance = charge.get("balance_transaction")
    return Succeeded(
        gateway_ref=intent["id"],
        transaction_id=charge["id"],
        captured=from_gateway_minor(intent["amount_received"], intent["currency"]),
        simulated_response=f"Success - TransactionId: {balance}" if balance else None,
    )


def _next_action(intent: dict[str, Any]) -> dict[str, Any] | None:
    if intent["status"] == "processing":
        return None
    action = intent.get("next_action") or {}
    if redirect := action.get("redirect_to_url"):
        return {"type": "redirect", "redirectUrl": redirect["url"]}
    return {"type": "confirm", "clientSecret": intent["client_secret"]}
