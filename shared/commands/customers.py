"""Record a customer and have exactly one made at the gateway; say whose card pays for a payment."""

import uuid
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.commands.asking import key_is_old, renew_key, until_known
from shared.commands.idempotency import IdempotentRequest, bind, find_bound
from shared.customers import CustomerConflict, CustomerNotFound
from shared.database import Sessions, lock, new_id, reading
from shared.gateways.customers import CustomerGateway, KeyPoisoned, NewCustomer
from shared.models_customers import Customer, SavedCard
from shared.payments import InvalidCommand
from shared.sealed import sealer_of

EMAIL = "customer.email"
GATEWAY_PREFIX = "cus_"
TEST_TOKEN = "pm_card_"  # noqa: S105 - how the gateway's test cards begin, which belong to nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateCustomer:
    """A checked command. `trusted`: the caller may act for any customer, not only for itself."""

    email: str
    name: str | None
    client_customer_id: str | None
    owner: str
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class CreatedCustomer:
    """The customer, who is at the gateway now, and whether the idempotency key was used before."""

    customer: Customer
    replayed: bool


def create_customer(
    sessions: Sessions,
    gateway: CustomerGateway,
    command: CreateCustomer,
    idempotent: IdempotentRequest | None = None,
) -> CreatedCustomer:
    """Return the customer with this email address, made where there is none; no transaction spans the call.

    A crash at any point is made good by a repeat. Raises CustomerConflict, GatewayUnavailable,
    IdempotencyKeyReused and IdempotencyKeyInUse.
    """
    if command.client_customer_id and command.client_customer_id.startswith(GATEWAY_PREFIX):
        raise InvalidCommand("customerId", f"must not start with {GATEWAY_PREFIX}, as the gateway's ids do")
    customer_id, replayed = _record(sessions, command, idempotent)
    customer = until_known(lambda: _attempt(sessions, gateway, customer_id))
    return CreatedCustomer(customer, replayed)


def find_customer(session: Session, customer_id: str, *, lock: bool = False) -> Customer:
    """Return the customer by the gateway's id or the client's own. Raises CustomerNotFound."""
    column = Customer.gateway_ref if customer_id.startswith(GATEWAY_PREFIX) else Customer.client_customer_id
    query = select(Customer).where(column == customer_id, Customer.gateway_ref.is_not(None))
    return _found(session.scalar(query.with_for_update(key_share=True) if lock else query))


def find_customer_by_email(session: Session, email: str) -> Customer:
    """Return the customer by email address, in whatever case. Raises CustomerNotFound."""
    query = select(Customer).where(_has_email(session, email.casefold()), Customer.gateway_ref.is_not(None))
    return _found(session.scalar(query))


def _has_email(session: Session, email: str) -> ColumnElement[bool]:
    """What holds for the customer with this address, whichever release and whichever key wrote it."""
    fingerprints = sealer_of(session).fingerprints(email, EMAIL)
    return or_(Customer.email_fingerprint.in_(fingerprints), Customer.email_plain == email)


def payer_of(session: Session, customer_id: str | None, payment_method_id: str | None) -> str | None:
    """Return the gateway's customer with whom a payment method must be charged; None if it is nobody's.

    Raises InvalidCommand, naming paymentMethodId, for a card that is another customer's or was removed.
    One indexed read, and none without a payment method or with a test token.
    """
    if payment_method_id is None or payment_method_id.startswith(TEST_TOKEN):
        return None
    query = (
        select(SavedCard.removed_at, Customer.gateway_ref, Customer.client_customer_id)
        .join(Customer, Customer.id == SavedCard.customer_id)
        .where(SavedCard.gateway_ref == payment_method_id)
    )
    card = session.execute(query).one_or_none()
    if card is None:
        return None
    # The same words for all: what cards another customer has is nobody else's business.
    if card.removed_at or customer_id not in {card.gateway_ref, card.client_customer_id}:
        raise InvalidCommand("paymentMethodId", "this customer has no such payment method")
    return str(card.gateway_ref)


def _found(customer: Customer | None) -> Customer:
    if customer is None:
        raise CustomerNotFound("Customer not found")
    return customer


def _record(
    sessions: Sessions, command: CreateCustomer, idempotent: IdempotentRequest | None
) -> tuple[uuid.UUID, bool]:
    with sessions.begin() as session:
        if idempotent and (bound := find_bound(session, idempotent)) and bound.customer_id:
            return bound.customer_id, True
        customer_id = _add_or_find(session, command)
        if idempotent:
            bind(session, idempotent, customer_id=customer_id)
        return customer_id, False


def _add_or_find(session: Session, command: CreateCustomer) -> uuid.UUID:
    now, email = func.clock_timestamp(), command.email.casefold()
    fingerprints = sealer_of(session).fingerprints(email, EMAIL)
    same = select(Customer).where(_has_email(session, email)).with_for_update(key_share=True)
    known = session.scalar(same)
    if known is None:
        # An address may be stored under either key, or by an earlier release, which no index sees to be the
        # same: of those that race, one adds it and the others look again.
        lock(session, "customer", min(fingerprints).hex())
        known = session.scalar(same)
    if known:
        _check_same(session, known, command)
        return known.id
    row = {
        "id": new_id(),
        "email_fingerprint": fingerprints[0],
        "email_sealed": email,
        "name_sealed": command.name,
        "client_customer_id": command.client_customer_id,
        "key_number": 1,
        "key_since": now,
        "owner": command.owner,
        "created_at": now,
    }
    added = insert(Customer).values(row).on_conflict_do_nothing().returning(Customer.id)
    if made := session.scalar(added):
        return made
    raise CustomerConflict("customerId: this id belongs to a customer with another email address")


def _check_same(session: Session, known: Customer, command: CreateCustomer) -> None:
    """Let a client give its own id to a customer that has none; refuse a second id."""
    if command.client_customer_id in {known.client_customer_id, None} and command.trusted:
        return
    if known.client_customer_id is not None:
        if known.client_customer_id != command.client_customer_id:
            raise CustomerConflict("email: this address belongs to a customer with another customerId")
        return
    if not command.trusted and known.owner != command.owner:
        raise CustomerConflict("email: this address belongs to another customer")
    try:
        with session.begin_nested():
            known.client_customer_id = command.client_customer_id
    except IntegrityError:
        raise CustomerConflict(
            "customerId: this id belongs to a customer with another email address"
        ) from None


def _attempt(sessions: Sessions, gateway: CustomerGateway, customer_id: uuid.UUID) -> Customer | None:
    """Return the customer once the gateway has it; None when a new key is to be tried."""
    with reading(sessions) as session:
        query = select(Customer, key_is_old(Customer)).where(Customer.id == customer_id)
        customer, is_old = session.execute(query).one()
    if customer.gateway_ref:
        return customer
    gateway_ref = _ask(gateway, customer, is_old=is_old)
    if gateway_ref is None:
        renew_key(sessions, Customer, customer.id, customer.key_number)
        return None
    with sessions.begin() as session:
        unknown = update(Customer).where(Customer.id == customer.id, Customer.gateway_ref.is_(None))
        session.execute(unknown.values(gateway_ref=gateway_ref))
    with reading(sessions) as session:
        return session.get_one(Customer, customer.id)


def _ask(gateway: CustomerGateway, customer: Customer, *, is_old: bool) -> str | None:
    """Return the gateway's reference; None when the gateway certainly made nothing under the present key."""
    wanted = NewCustomer(customer_id=str(customer.id), email=customer.email, name=customer.name)
    if not is_old:
        try:
            return gateway.create_customer(wanted, customer.gateway_key)
        except KeyPoisoned:
            pass
    return gateway.find_customer(wanted)
