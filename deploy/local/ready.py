"""What the stack prints once it is up: where everything answers, and a first payment to try."""

import uuid
from collections.abc import Mapping

TITLES = {
    "api_url": "API",
    "database_url": "PostgreSQL",
    "redis_url": "Valkey",
    "kafka_bootstrap_servers": "Kafka",
    "stripe_api_url": "Stripe",
}


def ready_block(endpoints: Mapping[str, str | None], took_s: float) -> str:
    """The block for people, several lines."""
    lines = ["", f"ready in {took_s:.1f} s"]
    for name, title in TITLES.items():
        address = endpoints[name] or ("Stripe itself" if name == "stripe_api_url" else "not started")
        lines.append(f"  {title:<11}{address}")
    if endpoints["api_url"]:
        lines += _first_payment(endpoints["api_url"])
    return "\n".join([*lines, ""])


def _first_payment(api_url: str) -> list[str]:
    body = f'{{"orderId": "{uuid.uuid4()}", "customerId": "{uuid.uuid4()}", "amount": 150.00}}'
    return [
        f"  {'Try it in':<11}{api_url}/docs   (authentication is off: this stack answers on loopback only)",
        "  or make a payment:",
        f"    curl -s {api_url}/payments -H 'Content-Type: application/json' \\",
        f"      -d '{body}'",
    ]
