"""Speak the accounts contract to a Payment API from a test."""

from collections.abc import Callable
from typing import Any, Final

from tests.api import JSON, Answer, Client
from tests.delivery import new_email
from tests.factories import as_json

PASSWORD: Final = "correct horse battery staple"


def account_body(**changes: Any) -> dict[str, Any]:
    """Return a body for registering; a change of None leaves the field out."""
    body = {
        "name": "Ada Lovelace",
        "email": new_email(),
        "password": PASSWORD,
        "phoneNumber": "+1 555 010 9999",
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


class Payer:
    """A client that knows only the contract: whoever it logs in as."""

    def __init__(self, client: Client, headers: dict[str, str] | None = None) -> None:
        """Send every request through this client, by default without a token."""
        self.client = client
        self.headers = headers or {}

    def register(self, **changes: Any) -> Answer:
        """Register; by default with an email address that nobody has."""
        return self.user("register", account_body(**changes))

    def login(self, email: str, password: str = PASSWORD) -> Answer:
        """Log in, and keep to oneself what comes of it."""
        return self.user("login", {"email": email, "password": password})

    def user(self, what: str, body: Any = None) -> Answer:
        """POST to one of the routes of users."""
        return self._post(f"/api/user/{what}", body)

    def newcomer(self, **changes: Any) -> "Payer":
        """Register somebody and log in; return what speaks for them."""
        body = account_body(**changes)
        assert self.user("register", body).status == 200
        answer = self.login(body["email"], body["password"])
        assert answer.status == 200, answer.text
        return Payer(self.client, {"Authorization": f"Bearer {answer.body['token']}"})

    def create(
        self, path: str = "/api/payment", headers: dict[str, str] | None = None, **body: Any
    ) -> Answer:
        """Create a payment."""
        given = {"amount": 150, "currency": "USD", "paymentMethod": "credit_card", **body}
        return self._post(path, given, **(headers or {}))

    def payment(self, **body: Any) -> str:
        """Create a payment and return its id."""
        answer = self.create(**body)
        assert answer.status == 201, answer.text
        return str(answer.body["result"]["id"])

    def ask(self, payment_id: str, what: str, body: Any = None, **headers: str) -> Answer:
        """POST to a route of a payment: process or refund."""
        return self._post(f"/api/payment/{payment_id}/{what}", body, **headers)

    def status(self, payment_id: str) -> Answer:
        """GET how a payment stands."""
        return self.client.get(f"/api/payment/{payment_id}/status", **self.headers)

    def asking(self, payment_id: str, what: str, **headers: str) -> Callable[[], Answer]:
        """Return a call for later."""
        return lambda: self.ask(payment_id, what, **headers)

    def _post(self, path: str, body: Any, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()} | self.headers
        if body is None:
            return self.client.send("POST", path, b"", named)
        sent = body if isinstance(body, str | bytes) else as_json(body)
        return self.client.send("POST", path, sent, {"Content-Type": JSON, **named})
