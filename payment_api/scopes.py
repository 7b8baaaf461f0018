"""What a caller may ask for: the scope that each route needs, and the scopes that each role has."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Final

from payment_api.principal import Principal, Role

ANYTHING: Final = "*"
READ, WRITE, GIVE_BACK = "payments:read", "payments:write", "refunds:write"
READ_CUSTOMERS, WRITE_CUSTOMERS = "customers:read", "customers:write"
READ_NOTIFICATIONS, WRITE_NOTIFICATIONS = "notifications:read", "notifications:write"
FIGURES: Final = "metrics:read"

# A role's scopes. Whose payments they are about is another question, which payment_api/access.py answers: a
# customer's are about its own, and some routes are the shop's alone, which is said only of what is its own.
GRANTED: Final[Mapping[Role, frozenset[str]]] = {
    Role.CUSTOMER: frozenset({READ, WRITE, GIVE_BACK, READ_CUSTOMERS, WRITE_CUSTOMERS}),
    Role.SERVICE: frozenset({READ, WRITE, GIVE_BACK, "customers:*", "notifications:*"}),
    Role.MERCHANT: frozenset({READ, WRITE, GIVE_BACK, "customers:*", "notifications:*"}),
    Role.OPERATOR: frozenset({ANYTHING}),
}

# Every route that is not open to all, as OpenAPI writes it, with the scope that it needs. One that is missing
# here is an operator's.
NEEDED: Final[Mapping[tuple[str, str], str]] = {
    ("POST", "/payments"): WRITE,
    ("GET", "/payments"): READ,
    ("GET", "/payments/{payment_id}"): READ,
    ("GET", "/payments/{payment_id}/timeline"): READ,
    ("POST", "/payments/authorize"): WRITE,
    ("POST", "/payments/{payment_id}/capture"): WRITE,
    ("POST", "/payments/{payment_id}/cancel"): WRITE,
    ("POST", "/payments/{payment_id}/refunds"): GIVE_BACK,
    ("GET", "/payments/{payment_id}/refunds"): READ,
    ("GET", "/refunds/{refund_id}"): READ,
    ("GET", "/orders/{order_id}/payment-status"): READ,
    ("POST", "/payment/customer"): WRITE_CUSTOMERS,
    ("GET", "/payment/customer/{email}"): READ_CUSTOMERS,
    ("POST", "/payment/payment-method"): WRITE_CUSTOMERS,
    ("POST", "/payment/payment-method-details"): WRITE_CUSTOMERS,
    ("GET", "/payment/payment-methods/{customer_id}"): READ_CUSTOMERS,
    ("DELETE", "/payment/payment-method"): WRITE_CUSTOMERS,
    ("POST", "/payment/payment-intent"): WRITE,
    ("POST", "/payment/refund"): GIVE_BACK,
    ("POST", "/api/user/logout"): READ,
    ("POST", "/api/payment"): WRITE,
    ("POST", "/api/payment/create"): WRITE,
    ("POST", "/api/payment/{payment_id}/process"): WRITE,
    ("GET", "/api/payment/{payment_id}/status"): READ,
    ("POST", "/api/payment/{payment_id}/refund"): GIVE_BACK,
    # Who subscribes hears of everybody's payments: no customer has these scopes.
    ("POST", "/notification-endpoints"): WRITE_NOTIFICATIONS,
    ("GET", "/notification-endpoints"): READ_NOTIFICATIONS,
    ("GET", "/notification-endpoints/{endpoint_id}"): READ_NOTIFICATIONS,
    ("PATCH", "/notification-endpoints/{endpoint_id}"): WRITE_NOTIFICATIONS,
    ("DELETE", "/notification-endpoints/{endpoint_id}"): WRITE_NOTIFICATIONS,
    ("POST", "/notification-endpoints/{endpoint_id}/secret"): WRITE_NOTIFICATIONS,
    ("POST", "/notification-endpoints/{endpoint_id}/resend"): WRITE_NOTIFICATIONS,
    ("GET", "/notification-endpoints/{endpoint_id}/deliveries"): READ_NOTIFICATIONS,
    ("POST", "/notification-endpoints/{endpoint_id}/deliveries/{event_id}/resend"): WRITE_NOTIFICATIONS,
    ("GET", "/metrics"): FIGURES,
}

_PARAMETER: Final = re.compile(r"<(?:\w+:)?(\w+)>")
# Words of OpenID Connect, which say what an issuer may tell of a person and nothing of what a caller may do.
_ABOUT_PERSONS: Final = frozenset({"openid", "profile", "email", "address", "phone", "offline_access"})


@cache
def needed_scope(method: str, rule: str) -> str:
    """The scope that a request by this method to this route needs; `rule` as Flask or OpenAPI writes it."""
    path = _PARAMETER.sub(r"{\1}", rule)
    return NEEDED.get(("GET" if method == "HEAD" else method, path), ANYTHING)


def named_scopes(claim: str) -> frozenset[str]:
    """What a token's `scope` claim narrows its role to; nothing when it names no access at all."""
    return frozenset(claim.split()) - _ABOUT_PERSONS


def may(caller: Principal, scope: str) -> bool:
    """Whether the caller has a scope: its role's, and its token's too when that names any."""
    return _covers(GRANTED[caller.role], scope) and (not caller.scopes or _covers(caller.scopes, scope))


def _covers(held: frozenset[str], scope: str) -> bool:
    return bool(held & {scope, f"{scope.partition(':')[0]}:*", ANYTHING})
