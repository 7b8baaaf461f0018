"""Stripe's customers and payment methods, behind the gateway port for customers."""

from collections.abc import Mapping
from typing import Any, NoReturn, cast

import stripe

from shared.gateways import Failed, GatewayUnavailable, Transient, Unknown
from shared.gateways.customers import CardFacts, GatewayBusy, GatewayRefused, KeyPoisoned, NewCustomer
from shared.gateways.stripe_errors import classify
from shared.gateways.stripe_http import NeverSent, PooledClient
from shared.telemetry import get_logger

CUSTOMERS = "/v1/customers"
METHODS = "/v1/payment_methods"
# An email address has one customer of ours; more were made by others.
PAGE = 100

log = get_logger(__name__)


class StripeCustomers:
    """Stripe, or a simulator that speaks its language at `api_url`."""

    def __init__(self, secret_key: str, api_url: str = "", *, pool_size: int = 10) -> None:
        """Make the process's client, which keeps up to `pool_size` connections; no call is made yet."""
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_url} if api_url else {},
            http_client=PooledClient(pool_size),
            max_network_retries=0,
        )

    def create_customer(self, customer: NewCustomer, key: str) -> str:
        """Make a Customer, with our id in its metadata."""
        parameters: dict[str, Any] = {
            "email": customer.email,
            "metadata": {"customer_id": customer.customer_id},
        }
        if customer.name:
            parameters["name"] = customer.name
        return str(self._call("post", CUSTOMERS, idempotency_key=key, **parameters)["id"])

    def find_customer(self, customer: NewCustomer) -> str | None:
        """List the Customers with this email address and match our id in their metadata.

        A list and not a search: Stripe's search lags and is not offered everywhere.
        """
        parameters: dict[str, Any] = {"email": customer.email, "limit": PAGE}
        while True:
            page = self._call("get", CUSTOMERS, **parameters)
            for each in page["data"]:
                if each["metadata"].get("customer_id") == customer.customer_id:
                    return str(each["id"])
            if not page["has_more"]:
                return None
            parameters["starting_after"] = page["data"][-1]["id"]

    def attach(self, token: str, customer_ref: str, key: str) -> CardFacts:
        """Attach a PaymentMethod. Anything but a card is let go of again and refused."""
        path = f"{METHODS}/{token}/attach"
        method = self._call("post", path, idempotency_key=key, customer=customer_ref)
        try:
            return _facts(method)
        except GatewayRefused:
            self.detach(method["id"])
            raise

    def card(self, card_ref: str) -> CardFacts:
        """Retrieve a PaymentMethod."""
        return _facts(self._call("get", f"{METHODS}/{card_ref}"))

    def detach(self, card_ref: str) -> None:
        """Detach a PaymentMethod. Without a key: a second time is refused, an old answer proves nothing."""
        self._call("post", f"{METHODS}/{card_ref}/detach")

    def set_default(self, customer_ref: str, card_ref: str) -> None:
        """Set the default for invoices. Without a key: the default may come back to a card it had left."""
        settings = {"default_payment_method": card_ref}
        self._call("post", f"{CUSTOMERS}/{customer_ref}", invoice_settings=settings)

    def _call(self, method: str, path: str, **parameters: Any) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", self._client.raw_request(method, path, **parameters).data)
        except stripe.StripeError as error:
            _raise(error)


def _facts(method: Mapping[str, Any]) -> CardFacts:
    card = method.get("card")
    if not card:
        raise GatewayRefused("This payment method is not a card", declined=False)
    return CardFacts(
        gateway_ref=method["id"],
        customer_ref=method.get("customer"),
        brand=card["brand"],
        last4=card["last4"],
        exp_month=card["exp_month"],
        exp_year=card["exp_year"],
        cardholder_name=(method.get("billing_details") or {}).get("name"),
    )


def _raise(error: stripe.StripeError) -> NoReturn:
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    details = found if isinstance(found, dict) else {}
    outcome = classify(
        error.http_status,
        details,
        replayed=(error.headers or {}).get("Idempotent-Replayed") == "true",
        sent=not isinstance(error, NeverSent),
    )
    log.info("gateway error", outcome=type(outcome).__name__, http_status=error.http_status, code=error.code)
    if isinstance(outcome, Failed):
        raise GatewayRefused(outcome.message, declined=details.get("type") == "card_error") from error
    if isinstance(outcome, Transient) and not isinstance(error, NeverSent):
        raise GatewayBusy(outcome.reason) from error
    if isinstance(outcome, Unknown) and outcome.key_poisoned:
        raise KeyPoisoned(outcome.reason) from error
    if not isinstance(outcome, Transient | Unknown):
        log.error("the gateway does not take our requests", reason=getattr(outcome, "reason", ""))
    raise GatewayUnavailable(getattr(outcome, "reason", "")) from error
