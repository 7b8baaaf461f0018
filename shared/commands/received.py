"""Commands from Kafka: each takes effect once, in one transaction with the note that it has come."""

import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.database import Sessions, reading
from shared.models import InboxMessage, InboxState


class AlreadyReceived(Exception):
    """The message came before; what it asked for is done or was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """A message that asks for something: where it came from, and its sender's id for it."""

    source: str  # the topic
    message_id: str
    payload: dict[str, Any]
    correlation_id: str | None


def take_in(session: Session, message: ReceivedMessage) -> None:
    """Note that the message has come; waits for another transaction that is just noting it.

    Raises AlreadyReceived for one that came before.
    """
    if session.execute(_note(message).returning(InboxMessage.message_id)).first() is None:
        raise AlreadyReceived(message.message_id)


def tie(session: Session, message: ReceivedMessage, payment_id: uuid.UUID) -> None:
    """Note which payment the message was about."""
    row = (InboxMessage.source == message.source, InboxMessage.message_id == message.message_id)
    session.execute(update(InboxMessage).where(*row).values(payment_id=payment_id))


def refuse(sessions: Sessions, message: ReceivedMessage, refusal: str) -> None:
    """Note that the message was refused, so that a repeat is not carried out after all."""
    with sessions.begin() as session:
        session.execute(_note(message, refusal))


def refusal_of(sessions: Sessions, message: ReceivedMessage) -> str | None:
    """Why a message that came before was refused; None for one that was carried out."""
    with reading(sessions) as session:
        return session.get_one(InboxMessage, (message.source, message.message_id)).error


def was_received(sessions: Sessions, message: ReceivedMessage) -> bool:
    """Whether the message came before."""
    with reading(sessions) as session:
        return session.get(InboxMessage, (message.source, message.message_id)) is not None


def _note(message: ReceivedMessage, refusal: str | None = None) -> Any:
    return (
        insert(InboxMessage)
        .values(
            source=message.source,
            message_id=message.message_id,
            type=message.source,
            payload=message.payload,
            state=InboxState.PROCESSED,
            attempts=1,
            error=refusal,
            correlation_id=message.correlation_id,
            received_at=func.clock_timestamp(),
        )
        .on_conflict_do_nothing()
    )
