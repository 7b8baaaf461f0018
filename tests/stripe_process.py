"""Start a Stripe simulator as a process of its own and call it through the stripe SDK."""

import json
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import requests
import stripe

from tests.simulator import Simulator
from tests.waiting import LONGEST_S

CALL_S = 120
INTENTS = "/v1/payment_intents"
FORM = "application/x-www-form-urlencoded"


class Running:
    """A simulator in a process of its own, with an SDK client and its control endpoints."""

    def __init__(self, state: Path, *, port: int = 0) -> None:
        """Start on `port`, 0 for a free one, and return once it listens."""
        command = [
            sys.executable,
            "-m",
            "deploy.stripe_simulator",
            "--port",
            str(port),
            "--state",
            str(state),
        ]
        self.state = state
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url: str = json.loads(self.process.stdout.readline())["url"]
        self.control = Simulator(self.url)
        self.client = stripe.StripeClient(
            "sk_test_of_a_test", base_addresses={"api": self.url}, max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=CALL_S),
        )  # fmt: skip

    @property
    def v1(self) -> Any:
        """The SDK's services, without its types: a test may ask for what they would not let through."""
        return self.client.v1

    @property
    def intents(self) -> Any:
        """The SDK's service for PaymentIntents."""
        return self.v1.payment_intents

    def pay(self, order: str = "", *, key: str | None = None, **params: Any) -> Any:
        """Create and confirm an intent for `order`; a parameter that is None is left out."""
        params = {
            "amount": 2500, "currency": "usd", "confirm": True, "payment_method": "pm_card_visa",
            "payment_method_types": ["card"], "metadata": {"order_id": order or str(uuid.uuid4())},
            "expand": ["latest_charge"],
        } | params  # fmt: skip
        given = {name: value for name, value in params.items() if value is not None}
        return self.intents.create(given, {"idempotency_key": key} if key else {})

    def post(self, path: str, body: Any = "", **headers: str) -> requests.Response:
        """Send a request that the SDK would not send."""
        headers = {
            "Authorization": "Bearer sk_test_x",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return requests.post(self.url + path, data=body, headers=headers, timeout=CALL_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the process and return its exit status."""
        self.process.send_signal(number)
        status = self.process.wait(LONGEST_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def error_of(refused: stripe.StripeError) -> Any:
    """Return the error object that Stripe has sent."""
    body: Any = refused.json_body
    return body["error"]
