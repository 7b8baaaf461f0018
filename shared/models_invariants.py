"""The tables of the check on invariants: what is broken, and how far the check has come."""

import uuid
from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from shared.models import Table


class InvariantViolation(Table):
    """A payment that breaks an invariant; the row goes when the payment is found whole again."""

    __tablename__ = "invariant_violation"

    invariant: Mapped[str] = mapped_column(primary_key=True)
    # No foreign key: nothing that this check writes may ever hold up a payment.
    payment_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    found_at: Mapped[datetime]


class InvariantPass(Table):
    """How far one of the check's passes has come: over what has changed, or over all payments."""

    __tablename__ = "invariant_pass"

    name: Mapped[str] = mapped_column(primary_key=True)
    turn_at: Mapped[datetime]  # the latest turn
    reached_at: Mapped[datetime | None]  # what changed until then was looked at
    reached_id: Mapped[uuid.UUID | None]  # of all payments, those up to this one; null: it begins anew
    finished_at: Mapped[datetime | None]  # when all payments had been looked at last
