"""Remove a customer's card: at once here, and then at the gateway, whatever dies in between."""

from datetime import timedelta

from sqlalchemy import func, select, update

from shared.commands.cards import belonging, live, move_default, tell_default
from shared.commands.customers import find_customer
from shared.customers import CardNotFound
from shared.database import Sessions, reading
from shared.gateways import GatewayUnavailable
from shared.gateways.customers import CustomerGateway, GatewayRefused
from shared.models_customers import Customer, SavedCard
from shared.telemetry import get_logger

UNFINISHED_AFTER = timedelta(minutes=1)  # by then a request that was to finish it has ended
BATCH = 100

log = get_logger(__name__)


def remove_card(sessions: Sessions, gateway: CustomerGateway, customer_id: str, card_ref: str) -> None:
    """Remove a card: from now on it cannot be charged, and the newest remaining one is the default.

    A repeat completes it and does nothing more. Raises CustomerNotFound, CardNotFound, GatewayUnavailable.
    """
    customer, card = _remove(sessions, customer_id, card_ref)
    if card.detached_at is None:
        _let_go(sessions, gateway, customer, card)
    tell_default(sessions, gateway, customer.id)


def finish_removals(sessions: Sessions, gateway: CustomerGateway) -> int:
    """Have the gateway let go of cards whose removal was cut short, and return how many there were.

    The first that the gateway cannot be asked for leaves the others to the next time. Raises
    GatewayUnavailable.
    """
    cut_short = (
        select(SavedCard, Customer)
        .join(Customer, Customer.id == SavedCard.customer_id)
        .where(
            SavedCard.removed_at < func.clock_timestamp() - UNFINISHED_AFTER,
            SavedCard.detached_at.is_(None),
        )
        # In any order: one that the gateway does not let go of holds up no other for good.
        .order_by(func.random())
        .limit(BATCH)
    )
    with reading(sessions) as session:
        found = session.execute(cut_short).all()
    for card, customer in found:
        _let_go(sessions, gateway, customer, card)
        tell_default(sessions, gateway, customer.id)
        log.info("a removed card was let go of late", card_id=str(card.id))
    return len(found)


def _remove(sessions: Sessions, customer_id: str, card_ref: str) -> tuple[Customer, SavedCard]:
    with sessions.begin() as session:
        customer = find_customer(session, customer_id, lock=True)
        card = session.scalar(
            select(SavedCard).where(SavedCard.customer_id == customer.id, SavedCard.gateway_ref == card_ref)
        )
        if card is None:
            raise CardNotFound("Payment method not found")
        if card.removed_at is None:
            was_default = card.is_default
            values = {"is_default": False, "removed_at": func.clock_timestamp()}
            session.execute(update(SavedCard).where(SavedCard.id == card.id).values(values))
            if was_default:
                newest = select(SavedCard.id).where(*live(customer.id)).order_by(SavedCard.id.desc())
                move_default(session, customer.id, session.scalar(newest.limit(1)))
        return customer, card


def _let_go(sessions: Sessions, gateway: CustomerGateway, customer: Customer, card: SavedCard) -> None:
    _detach(gateway, customer, str(card.gateway_ref))
    with sessions.begin() as session:
        gone = update(SavedCard).where(SavedCard.id == card.id, SavedCard.detached_at.is_(None))
        session.execute(gone.values(detached_at=func.clock_timestamp()))


def _detach(gateway: CustomerGateway, customer: Customer, card_ref: str) -> None:
    try:
        gateway.detach(card_ref)
    except GatewayRefused as refused:
        # Mostly because an earlier attempt has done it; what the gateway says now decides.
        if belonging(gateway, str(customer.gateway_ref), card_ref):
            raise GatewayUnavailable("the gateway does not let go of the card") from refused
