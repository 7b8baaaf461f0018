"""Speak the delivery contract to a Payment API from a test, and look at Stripe's side of it."""

from typing import Any, Final

import requests

from tests.api import JSON, Answer, Client
from tests.factories import as_json, new_uuid

KEY: Final = "sk_test_" + "0" * 24
TIMEOUT_S: Final = 120


def new_email() -> str:
    """Return an email address that nobody has."""
    return f"{new_uuid()}@example.com"


class Delivery:
    """A delivery shop, which knows only the contract."""

    def __init__(self, client: Client) -> None:
        """Send every request through this client."""
        self.client = client

    def create(self, **body: Any) -> Answer:
        """Create a customer; by default with an email address that nobody has."""
        return self.client.post({"email": new_email(), **body}, path="/payment/customer")

    def customer(self, **body: Any) -> str:
        """Create a customer and return its id."""
        answer = self.create(**body)
        assert answer.status == 201, answer.text
        return str(answer.body["data"]["customerId"])

    def save(self, customer_id: str, card: str, **headers: str) -> Answer:
        """Save a card."""
        body = {"customerId": customer_id, "paymentMethodId": card}
        return self.client.post(body, path="/payment/payment-method", **headers)

    def save_details(self, customer_id: str, card: str, **details: Any) -> Answer:
        """Save a card with details."""
        body = {"customerId": customer_id, "paymentMethodId": card, **details}
        return self.client.post(body, path="/payment/payment-method-details")

    def card(self, customer_id: str, card: str = "pm_card_visa", **details: Any) -> str:
        """Save a card and return its id."""
        answer = self.save_details(customer_id, card, **details)
        assert answer.status == 200, answer.text
        return str(answer.body["data"]["payment_method_id"])

    def delete(self, customer_id: str, card: str) -> Answer:
        """Delete a card."""
        body = as_json({"customerId": customer_id, "paymentMethodId": card})
        return self.client.send("DELETE", "/payment/payment-method", body, {"Content-Type": JSON})

    def cards(self, customer_id: str) -> list[dict[str, Any]]:
        """List a customer's cards."""
        answer = self.client.get(f"/payment/payment-methods/{customer_id}")
        assert answer.status == 200, answer.text
        cards: list[dict[str, Any]] = answer.body["data"]
        return cards

    def default(self, customer_id: str) -> str:
        """Return the one default card."""
        (default,) = [each["payment_method_id"] for each in self.cards(customer_id) if each["is_default"]]
        return str(default)


class StripeSide:
    """What the simulator shows to whoever asks as a client of Stripe would."""

    def __init__(self, url: str) -> None:
        """Ask the simulator that answers at `url`."""
        self._url = url

    def customers(self, email: str) -> list[dict[str, Any]]:
        """List the customers with an email address."""
        customers: list[dict[str, Any]] = self._call("GET", f"customers?email={email}")["data"]
        return customers

    def default(self, customer_ref: str) -> str | None:
        """Return the payment method that the customer's invoices take."""
        default: str | None = self._call("GET", f"customers/{customer_ref}")["invoice_settings"][
            "default_payment_method"
        ]
        return default

    def cards(self, customer_ref: str) -> set[str]:
        """Return the ids of a customer's payment methods."""
        page = self._call("GET", f"payment_methods?customer={customer_ref}&limit=100")
        return {each["id"] for each in page["data"]}

    def intents(self, customer_ref: str) -> list[dict[str, Any]]:
        """List a customer's PaymentIntents."""
        intents: list[dict[str, Any]] = self._call("GET", f"payment_intents?customer={customer_ref}")["data"]
        return intents

    def new_card(self, token: str = "tok_visa", **details: str) -> str:  # noqa: S107 - a test token
        """Make a payment method, as the client's browser would, and return its id."""
        return str(
            self._call("POST", "payment_methods", {"type": "card", "card[token]": token, **details})["id"]
        )

    def attach(self, card: str, customer_ref: str) -> None:
        """Attach a payment method behind the service's back."""
        self._call("POST", f"payment_methods/{card}/attach", {"customer": customer_ref})

    def _call(self, method: str, path: str, form: dict[str, str] | None = None) -> Any:
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = requests.request(
            method, f"{self._url}/v1/{path}", data=form, headers=headers, timeout=TIMEOUT_S
        )
        assert answer.ok, answer.text
        return answer.json()
