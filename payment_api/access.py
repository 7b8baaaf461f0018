"""Who is let in and what each may see: the one place that every route asks.

What a caller may not see does not exist for it: the answer is the one for an unknown id.
"""

import uuid
from typing import Any

import flask
from sqlalchemy import Select, select

from payment_api import rate_limits
from payment_api.contracts.fields import read_uuid
from payment_api.errors import ErrorCode, RequestRefused
from payment_api.jwks import KeysUnavailable
from payment_api.principal import LOCAL, Principal, Role, current_principal
from payment_api.scopes import may, needed_scope
from payment_api.services import services
from payment_api.tokens import BadToken
from shared.commands import customers
from shared.commands.revocation import is_revoked
from shared.customers import CustomerNotFound
from shared.database import reading
from shared.models import Payment
from shared.models_customers import Customer
from shared.payments import PaymentNotFound

# What probes, documents and gateways ask for is neither asked who it is nor counted. Stripe signs what it
# sends to /webhooks/, which is its way to say who it is.
_FREE = ("/healthz", "/readyz", "/openapi.json", "/docs")
_FREE_BELOW = ("/docs/", "/webhooks/")
# Open to strangers, who are counted by their address.
_OPEN: tuple[str, ...] = ("/api/user/register", "/api/user/login")  # that is how one gets a token
# Where a token says who pays, one is needed even if others may do without.
_NEVER_ANONYMOUS = "/api/"


def is_free(rule: str) -> bool:
    """Whether requests to this route are not even counted."""
    return rule in _FREE or rule.startswith(_FREE_BELOW)


def is_open(rule: str) -> bool:
    """Whether everybody may ask at this route, token or not. A new route is closed."""
    return is_free(rule) or rule in _OPEN


def admit() -> None:
    """Find out who sends this request and whether they may, before anything of it is read.

    Raises RequestRefused.
    """
    rule = flask.request.url_rule
    if rule is None or is_free(rule.rule):
        return
    if is_open(rule.rule):
        _count(None)
        return
    try:
        flask.g.principal = _caller(rule.rule)
    except BadToken as error:
        flask.g.facts = {"refused": str(error)}
        # Always the same words: whoever tries tokens learns nothing from them.
        raise RequestRefused(ErrorCode.UNAUTHENTICATED, "A valid bearer token is needed") from None
    except KeysUnavailable:
        message = "The issuer of the token cannot be asked for its keys; try again"
        raise RequestRefused(ErrorCode.ISSUER_UNAVAILABLE, message) from None
    _check_scope(rule.rule)


def _caller(rule: str) -> Principal:
    authorization = flask.request.headers.get("Authorization")
    may_be_anonymous = not services().settings.auth_required and not rule.startswith(_NEVER_ANONYMOUS)
    if authorization is None and may_be_anonymous:
        return LOCAL  # on loopback alone, and not counted
    try:
        caller = services().tokens.read(authorization or "")
    except (BadToken, KeysUnavailable):
        _count(None)  # who guesses tokens has an address
        raise
    _count(caller)
    if caller.token_id and is_revoked(services().sessions, caller.token_id):
        raise BadToken("revoked")
    return caller


def _count(caller: Principal | None) -> None:
    """Count the request. Raises RequestRefused for one too many."""
    standing = services().rate_limits.count(
        caller.id if caller else None,
        flask.request.remote_addr,
        customer=caller is not None and caller.role is Role.CUSTOMER,
    )
    flask.g.rate = standing
    if standing and standing.exceeded:
        again = {"Retry-After": str(rate_limits.wait_s(standing))}
        raise RequestRefused(ErrorCode.RATE_LIMITED, "Too many requests; come back later", again)


def _check_scope(rule: str) -> None:
    if flask.request.method == "OPTIONS":
        return
    scope = needed_scope(flask.request.method, rule)
    if not may(current_principal(), scope):
        # RFC 6750, section 3.1.
        challenge = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}
        raise RequestRefused(ErrorCode.FORBIDDEN, f"The scope {scope} is needed", challenge)


def visible(payment: Payment) -> bool:
    """Whether the caller may know of this payment."""
    return current_principal().owns(payment.customer_id)


def only_visible(query: Select[Any]) -> Select[Any]:
    """Leave out of a query on payments what the caller may not know of."""
    return query.where(Payment.customer_id == current_principal().id) if is_customer() else query


def id_of_path(text: str) -> uuid.UUID:
    """The id that a path names. Raises RequestRefused for one that no body may name it by, either."""
    try:
        return read_uuid(text)
    except ValueError:
        raise RequestRefused(ErrorCode.VALIDATION_FAILED, "id: Not a valid UUID.") from None


def find_payment(payment_id: str) -> Payment:
    """The payment of this id, as a path names it.

    Raises RequestRefused for what is no UUID, PaymentNotFound also for one that is not the caller's.
    """
    key = id_of_path(payment_id)
    with reading(services().sessions) as session:
        return _payment(session.get(Payment, key))


def find_payment_by_intent(gateway_ref: str) -> Payment:
    """The payment of this PaymentIntent. Raises PaymentNotFound also for one that is not the caller's."""
    with reading(services().sessions) as session:
        payment = session.scalar(select(Payment).where(Payment.gateway_ref == gateway_ref))
    return _payment(payment)


def _payment(payment: Payment | None) -> Payment:
    if payment is None or not visible(payment):
        raise PaymentNotFound("Payment not found")
    return payment


def find_customer(customer_id: str) -> Customer:
    """The customer by the gateway's id or the client's. Raises CustomerNotFound also for a stranger's."""
    with reading(services().sessions) as session:
        return _customer(customers.find_customer(session, customer_id))


def find_customer_by_email(email: str) -> Customer:
    """The customer by email address. Raises CustomerNotFound also for a stranger's."""
    with reading(services().sessions) as session:
        return _customer(customers.find_customer_by_email(session, email))


def _customer(customer: Customer) -> Customer:
    if not current_principal().owns(customer.client_customer_id):
        raise CustomerNotFound("Customer not found")
    return customer


def is_customer() -> bool:
    """Whether the caller acts for itself alone."""
    return current_principal().role is Role.CUSTOMER


def check_customer(customer_id: str | None) -> None:
    """Raises RequestRefused when the caller may not make payments for this customer."""
    if not current_principal().owns(customer_id):
        raise RequestRefused(ErrorCode.FORBIDDEN, "customerId: must be the caller's own id")


def check_acts_for_the_shop() -> None:
    """Raises RequestRefused for a customer: what is taken of a hold or given back is the shop's to decide."""
    if current_principal().role is Role.CUSTOMER:
        raise RequestRefused(ErrorCode.FORBIDDEN, "Only the shop's own callers may capture and refund")
