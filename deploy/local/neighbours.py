"""NEIGHBOURS=1: an order service to check against, so that the checks and notices can be tried."""

import os
import sys
from collections.abc import Mapping

from deploy.local.outside import BadSetting
from deploy.local.parts import Part, http_ok, server_environment
from deploy.local.ports import Port

TURNED_ON = ("RESERVATIONS", "INVENTORY_REFUNDS")


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether NEIGHBOURS is 1; raises BadSetting for what is neither 0 nor 1."""
    chosen = environment.get("NEIGHBOURS") or "0"
    if chosen not in {"0", "1"}:
        message = f"NEIGHBOURS is {chosen!r}, expected 0 or 1"
        raise BadSetting(message)
    if chosen == "1" and environment.get("ORDER_SERVICE_URL"):
        message = "NEIGHBOURS=1 starts an order service of its own; unset ORDER_SERVICE_URL or NEIGHBOURS"
        raise BadSetting(message)
    return chosen == "1"


def settings(url: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What our processes are told: ask this order service, and mind what neighbours tell."""
    told = {name: environment.get(name) or "on" for name in TURNED_ON}
    return {"ORDER_SERVICE_URL": url, **told}


def ordering_part(port: Port, bootstrap_servers: str, topic_prefix: str) -> Part:
    """The order service; it forgets its orders when it ends."""
    argv = [sys.executable, "-m", "deploy.local.order_service", "--port", str(port.number)]
    argv += ["--kafka", bootstrap_servers, "--topic-prefix", topic_prefix]
    return Part(
        name="ordering",
        argv=lambda: argv,
        environment=server_environment(),
        port=port,
        answers=lambda: http_ok(port.number, "/healthz"),
    )


def try_it(api_url: str, url: str) -> list[str]:
    """What to do with it, for people."""
    json = "-H 'Content-Type: application/json'"
    return [
        f"  {'Orders':<11}{url}: only orders placed there are charged, and only active reservations",
        "  place an order and pay it; with another amount it is refused:",
        f'    order=$(curl -s {url}/orders -d \'{{"amount": 150.00}}\'); echo "$order"',
        f'    curl -s {api_url}/payments {json} -d "$(echo "$order" | sed \'s/"id"/"orderId"/\')"',
    ]
