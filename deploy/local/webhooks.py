"""Tell the embedded Stripe simulator where its webhooks go: a job once both are known, run before the API."""

import json
import os
import secrets
import sys
import urllib.request
from collections.abc import Mapping

from deploy.local.outside import BadSetting, given
from deploy.local.parts import Job, server_environment
from shared.gateways.stripe_webhooks import HANDLED

PATH = "/webhooks/stripe"
SECRET_PREFIX = "whsec_"  # noqa: S105 - how every such secret begins
CALL_S = 10
TARGET, SIMULATOR = "WEBHOOK_TARGET", "SIMULATOR_URL"


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the simulator is to send webhooks: WEBHOOKS is on unless it is off. Raises BadSetting."""
    chosen = environment.get("WEBHOOKS") or "on"
    if chosen not in {"on", "off"}:
        message = f"WEBHOOKS is {chosen!r}, expected on or off"
        raise BadSetting(message)
    return chosen == "on"


def secret() -> str:
    """The secret that signs: STRIPE_WEBHOOK_SECRET, or a new one."""
    return given("STRIPE_WEBHOOK_SECRET") or f"{SECRET_PREFIX}{secrets.token_hex(16)}"


def job(simulator_url: str | None, api_url: str | None, signing_secret: str) -> Job:
    """The job that sets the simulator's endpoint, or without a secret takes an earlier one away."""
    environment = {
        **server_environment(),
        SIMULATOR: simulator_url or "",
        TARGET: f"{api_url}{PATH}" if signing_secret else "",
        "STRIPE_WEBHOOK_SECRET": signing_secret,
    }
    return Job("webhooks", [sys.executable, "-m", "deploy.local.webhooks"], environment)


def main() -> None:
    """Set the endpoint after the environment."""
    endpoint = {
        "url": os.environ[TARGET],
        "secret": given("STRIPE_WEBHOOK_SECRET"),
        "enabled_events": sorted(HANDLED),
    }
    request = urllib.request.Request(  # noqa: S310 - an address of this stack
        f"{os.environ[SIMULATOR]}/_control/webhooks",
        data=json.dumps(endpoint if endpoint["url"] else {"url": None}).encode(),
        headers={"Content-Type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=CALL_S):  # noqa: S310 - as above
        pass


if __name__ == "__main__":
    main()
