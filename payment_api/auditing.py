"""Note what operators change over HTTP: before the route runs, and how it ended."""

from typing import Any

import flask

from payment_api.principal import LOCAL, Role
from payment_api.services import services
from shared.commands import audit
from shared.gateways.exchanges import redacted

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
# What a body may name that an act is on; whatever else is in it stays out of the trail.
_IDS = (
    "orderId", "cartId", "customerId", "paymentId", "paymentIntentId", "paymentMethodId", "refundId",
    "reservationId", "amount", "currency",
)  # fmt: skip
MAX_SHOWN = 255


def begin_audit() -> None:
    """Note an operator's request that may change something; who needs no token and sends none is nobody."""
    rule = flask.request.url_rule
    caller = flask.g.get("principal")
    if rule is None or caller is None or caller is LOCAL:
        return
    if caller.role is not Role.OPERATOR or flask.request.method in _READS:
        return
    act = audit.Act(
        actor=caller.id,
        channel="http",
        action=f"{flask.request.method} {rule.rule}",
        subject={name: str(value)[:MAX_SHOWN] for name, value in (flask.request.view_args or {}).items()},
        came_from=flask.request.remote_addr or "unknown",
        correlation_id=flask.g.correlation_id,
    )
    flask.g.audited = audit.note(services().sessions, act)


def end_audit(response: flask.Response) -> flask.Response:
    """Note how it ended, and what the body and the route said that it was on."""
    if entry := flask.g.pop("audited", None):
        audit.complete(services().sessions, entry, str(response.status_code), _named())
    return response


def _named() -> dict[str, Any]:
    body = flask.g.get("body")
    named = (
        {name: str(body[name])[:MAX_SHOWN] for name in _IDS if name in body} if isinstance(body, dict) else {}
    )
    facts = flask.g.get("facts", {})
    # A payment method's id is shown by its end, as in evidence: some can be paid with.
    shown: dict[str, Any] = redacted(named)
    return shown | ({"payment_id": facts["payment_id"]} if "payment_id" in facts else {})
