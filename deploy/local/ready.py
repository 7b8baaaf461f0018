"""What the stack prints once it is up: where everything answers, and a first payment to try."""

import uuid
from collections.abc import Mapping

from deploy.local.identity import Identity
from deploy.local.neighbours import try_it
from deploy.local.parts import program

TITLES = {
    "api_url": "API",
    "database_url": "PostgreSQL",
    "redis_url": "Valkey",
    "kafka_bootstrap_servers": "Kafka",
    "stripe_api_url": "Stripe",
}


def ready_block(endpoints: Mapping[str, str | None], identity: Identity | None, took_s: float) -> str:
    """The block for people, several lines."""
    lines = ["", f"ready in {took_s:.1f} s"]
    for name, title in TITLES.items():
        address = endpoints[name] or ("Stripe itself" if name == "stripe_api_url" else "not started")
        lines.append(f"  {title:<11}{address}")
    if endpoints["api_url"] and identity:
        orders = endpoints.get("order_service_url")
        first = _first_payment(endpoints["api_url"], identity)
        lines += [_tokens(identity), *(try_it(endpoints["api_url"], orders) if orders else first)]
    return "\n".join([*lines, ""])


def _tokens(identity: Identity) -> str:
    state = (
        "AUTH=required: every request needs one"
        if identity.required
        else "AUTH=optional: nobody needs one, as this stack answers on loopback only"
    )
    told = f"JWT_SECRET_FILE={identity.secret_file} " if identity.secret_file else ""
    return (
        f"  {'Tokens':<11}{state}; signed with {identity.secret_file or 'your JWT_SECRET'}\n"
        f"  {'':<11}TOKEN=$({told}{program('payment-api')} token --sub me --role service)"
    )


def _first_payment(api_url: str, identity: Identity) -> list[str]:
    body = f'{{"orderId": "{uuid.uuid4()}", "customerId": "{uuid.uuid4()}", "amount": 150.00}}'
    token = ' -H "Authorization: Bearer $TOKEN"' if identity.required else ""
    return [
        f"  {'Try it in':<11}{api_url}/docs",
        "  or make a payment:",
        f"    curl -s {api_url}/payments{token} -H 'Content-Type: application/json' \\",
        f"      -d '{body}'",
    ]
