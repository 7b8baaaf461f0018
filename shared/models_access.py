"""The tables of who may do what: tokens that were taken back, and what operators did."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from shared.models import Table


class RevokedToken(Table):
    """A token that is refused although it has not expired; of no use once it has."""

    __tablename__ = "revoked_token"
    __table_args__ = (Index("ix_revoked_token_expires_at", "expires_at"),)

    token_id: Mapped[str] = mapped_column(primary_key=True)  # a digest: no token can be made from it
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime]


class AuditEntry(Table):
    """Something that an operator changed, or tried to: written before it is done, completed afterwards."""

    __tablename__ = "audit_entry"
    __table_args__ = (
        CheckConstraint("channel IN ('http', 'command')", name="channel_known"),
        Index("ix_audit_entry_actor_id", "actor", "id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv7: newest is greatest
    at: Mapped[datetime]
    actor: Mapped[str]  # a token's sub, or the login name of who gave the command
    channel: Mapped[str]
    action: Mapped[str]  # method and route, or the command's name
    subject: Mapped[dict[str, Any]]  # the ids and options that were named
    came_from: Mapped[str]  # a network address, or the name of the host
    correlation_id: Mapped[str]
    outcome: Mapped[str | None]  # an HTTP status, or done or failed; null: it broke off in the middle
