"""Save a card to a customer, and keep exactly one default among a customer's cards."""

import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from shared.commands.asking import key_is_old, renew_key, until_known
from shared.commands.customers import GATEWAY_PREFIX, find_customer
from shared.commands.idempotency import IdempotentRequest, bind, find_bound, unbind
from shared.customers import CardDeclined, CardNotFound, CustomerConflict
from shared.database import Sessions, new_id, reading
from shared.gateways.customers import CardFacts, CustomerGateway, GatewayRefused, KeyPoisoned
from shared.models_customers import Customer, SavedCard
from shared.payments import InvalidCommand
from shared.sealed import sealer_of
from shared.telemetry import get_logger

TOKEN = "saved_card.token"  # noqa: S105 - a column
MAX_CARDS = 100  # of one customer; nobody has so many, and a list has to end
# Each round that follows answers to somebody who chose another default meanwhile.
MAX_ROUNDS = 10
CANNOT_BE_SAVED = "is unknown, was used before, or belongs to another customer"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveCard:
    """A checked command: keep this payment method for this customer."""

    customer_id: str
    token: str
    cardholder_name: str | None = None
    make_default: bool = False


@dataclass(frozen=True, slots=True)
class KeptCard:
    """The saved card, and whether the idempotency key was used before."""

    card: SavedCard
    replayed: bool


def save_card(
    sessions: Sessions,
    gateway: CustomerGateway,
    command: SaveCard,
    idempotent: IdempotentRequest | None = None,
) -> KeptCard:
    """Attach the payment method and record what the gateway says of it; a repeat completes or repeats it.

    A customer's first card is the default. Raises CustomerNotFound, InvalidCommand for what cannot be
    attached, CardDeclined, CustomerConflict at too many cards, GatewayUnavailable, IdempotencyKeyReused
    and IdempotencyKeyInUse.
    """
    customer, card_id, replayed = _record(sessions, command, idempotent)
    try:
        facts = until_known(lambda: _attempt(sessions, gateway, customer, card_id))
    except GatewayRefused as refused:
        _forget(sessions, card_id, idempotent)
        if refused.declined:
            raise CardDeclined(str(refused)) from refused
        raise InvalidCommand("paymentMethodId", CANNOT_BE_SAVED) from refused
    card = _settle(sessions, card_id, command, facts if isinstance(facts, CardFacts) else None)
    tell_default(sessions, gateway, customer.id)
    return KeptCard(card, replayed)


def list_cards(session: Session, customer: Customer) -> list[SavedCard]:
    """Return a customer's cards: the default, then the newest first."""
    query = select(SavedCard).where(*live(customer.id))
    return list(session.scalars(query.order_by(SavedCard.is_default.desc(), SavedCard.id.desc())))


def default_card(session: Session, customer_id: str) -> str | None:
    """The gateway's id of a customer's default card; None when there is no such customer, or no card."""
    column = Customer.gateway_ref if customer_id.startswith(GATEWAY_PREFIX) else Customer.client_customer_id
    query = select(SavedCard.gateway_ref).join(Customer, Customer.id == SavedCard.customer_id)
    return session.scalar(query.where(column == customer_id, SavedCard.is_default))


def tell_default(sessions: Sessions, gateway: CustomerGateway, customer_id: uuid.UUID) -> None:
    """Tell the gateway which card is the default, unless it knows.

    Of many who do so at once, each looks again after its call: the last to be heard tells the truth.
    Raises GatewayUnavailable.
    """
    told: str | None = None
    for _ in range(MAX_ROUNDS):
        with reading(sessions) as session:
            customer = session.get_one(Customer, customer_id)
            default = session.scalar(
                select(SavedCard.gateway_ref).where(
                    SavedCard.customer_id == customer_id, SavedCard.is_default
                )
            )
        if default is None or (told or customer.gateway_default_ref) == default:
            break
        try:
            gateway.set_default(str(customer.gateway_ref), default)
        except GatewayRefused as refused:
            # The card has vanished at the gateway. Our charges name their card, so nothing depends on it.
            log.warning("the gateway does not take the default card", reason=str(refused))
            return
        told = default
    if told:
        with sessions.begin() as session:
            customer = session.get_one(Customer, customer_id)
            customer.gateway_default_ref = told


def live(customer_id: uuid.UUID) -> tuple[Any, ...]:
    """What holds for a card that its customer has."""
    return (
        SavedCard.customer_id == customer_id,
        SavedCard.attached_at.is_not(None),
        SavedCard.removed_at.is_(None),
    )


def _record(
    sessions: Sessions, command: SaveCard, idempotent: IdempotentRequest | None
) -> tuple[Customer, uuid.UUID, bool]:
    """Return the customer, the card's row, new or known, and whether the key was used before."""
    with sessions.begin() as session:
        customer = find_customer(session, command.customer_id, lock=True)
        replayed = bool(idempotent and find_bound(session, idempotent))
        fingerprints = sealer_of(session).fingerprints(command.token, TOKEN)
        known = session.scalar(
            select(SavedCard.id).where(
                SavedCard.customer_id == customer.id,
                SavedCard.removed_at.is_(None),
                or_(
                    SavedCard.token_fingerprint.in_(fingerprints),
                    SavedCard.token_plain == command.token,
                    SavedCard.gateway_ref == command.token,
                ),
            )
        )
        if known is None and replayed:
            raise CardNotFound("The payment method was removed")
        card_id = known or _add(session, customer, command)
        if idempotent and not replayed:
            bind(session, idempotent, customer_id=customer.id)
        return customer, card_id, replayed


def _add(session: Session, customer: Customer, command: SaveCard) -> uuid.UUID:
    count = session.scalar(select(func.count()).where(*live(customer.id)))
    if count is not None and count >= MAX_CARDS:
        raise CustomerConflict(f"paymentMethodId: the customer has {MAX_CARDS} payment methods already")
    now = func.clock_timestamp()
    card = SavedCard(
        id=new_id(),
        customer_id=customer.id,
        token_fingerprint=sealer_of(session).fingerprint(command.token, TOKEN),
        token_sealed=command.token,
        is_default=False,
        key_number=1,
        key_since=now,
        created_at=now,
    )
    session.add(card)
    session.flush()
    return card.id


def _attempt(
    sessions: Sessions, gateway: CustomerGateway, customer: Customer, card_id: uuid.UUID
) -> CardFacts | SavedCard | None:
    """Return the card if it is attached, else what the gateway says that attached it now.

    None when a new key is to be tried. Raises GatewayRefused.
    """
    with reading(sessions) as session:
        query = select(SavedCard, key_is_old(SavedCard)).where(SavedCard.id == card_id)
        found = session.execute(query).one_or_none()
    if found is None:  # the same request, made twice at once, was refused
        raise GatewayRefused(CANNOT_BE_SAVED, declined=False)
    card, is_old = found
    if card.attached_at:
        return card
    facts = _ask(gateway, str(customer.gateway_ref), card, is_old=is_old)
    if facts is None:
        renew_key(sessions, SavedCard, card.id, card.key_number)
    return facts


def _ask(gateway: CustomerGateway, customer_ref: str, card: SavedCard, *, is_old: bool) -> CardFacts | None:
    """Return the attached card; None when the present key has attached nothing. Raises GatewayRefused."""
    refusal: GatewayRefused | None = None
    if not is_old:
        try:
            return gateway.attach(card.token, customer_ref, card.gateway_key)
        except KeyPoisoned:
            pass
        except GatewayRefused as refused:
            if refused.declined:
                raise
            refusal = refused
    # It may be the customer's already: by an attempt whose answer was lost, or by the client's own doing.
    if facts := belonging(gateway, customer_ref, card.token):
        return facts
    if refusal:
        raise refusal
    return None


def belonging(gateway: CustomerGateway, customer_ref: str, card_ref: str) -> CardFacts | None:
    """Return what the gateway says of a card that is this customer's; None if it is not."""
    try:
        facts = gateway.card(card_ref)
    except GatewayRefused:
        return None
    return facts if facts.customer_ref == customer_ref else None


def _forget(sessions: Sessions, card_id: uuid.UUID, idempotent: IdempotentRequest | None) -> None:
    """Nothing is stored of what was refused."""
    with sessions.begin() as session:
        session.execute(delete(SavedCard).where(SavedCard.id == card_id, SavedCard.attached_at.is_(None)))
        if idempotent:
            unbind(session, idempotent)


def _settle(sessions: Sessions, card_id: uuid.UUID, command: SaveCard, facts: CardFacts | None) -> SavedCard:
    """Record the attached card, the name that the client knows, and the default, all at once."""
    with sessions.begin() as session:
        customer = find_customer(session, command.customer_id, lock=True)
        card = session.get_one(SavedCard, card_id)
        if card.removed_at:
            raise CardNotFound("The payment method was removed")
        if facts and card.attached_at is None:
            card.gateway_ref = facts.gateway_ref
            card.brand, card.last4 = facts.brand, facts.last4
            card.exp_month, card.exp_year = facts.exp_month, facts.exp_year
            card.cardholder_name = facts.cardholder_name
            card.attached_at = session.scalar(select(func.clock_timestamp()))
        card.cardholder_name = card.cardholder_name or command.cardholder_name
        session.flush()
        default = session.scalar(
            select(SavedCard.id).where(SavedCard.customer_id == customer.id, SavedCard.is_default)
        )
        if default is None or command.make_default:
            move_default(session, customer.id, card.id)
        session.refresh(card)
        return card


def move_default(session: Session, customer_id: uuid.UUID, card_id: uuid.UUID | None) -> None:
    """Make this card the default, or none; the caller holds the customer's lock."""
    was = update(SavedCard).where(SavedCard.customer_id == customer_id, SavedCard.is_default)
    session.execute(was.values(is_default=False))
    if card_id:
        session.execute(update(SavedCard).where(SavedCard.id == card_id).values(is_default=True))
