"""The table of dead letters that were sent again."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shared.models import Table


class Redrive(Table):
    """A message that an operator sends again from the dead letters; the row is there before it is sent."""

    __tablename__ = "redrive"
    __table_args__ = (
        CheckConstraint("(delivered_at IS NULL) = (claimed_until IS NOT NULL)", name="claimed_or_delivered"),
    )

    letter_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # of the message: the same for each letter
    topic: Mapped[str]  # where the message came from and goes to
    partition: Mapped[int]  # where it stood there
    offset: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str]
    actor: Mapped[str]
    created_at: Mapped[datetime]
    # Until then its sender is at it; later another may take over, for it must have died.
    claimed_until: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]  # the broker has confirmed it
