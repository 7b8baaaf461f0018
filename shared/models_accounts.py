"""The tables of accounts: who registered here, and whose logins have failed lately."""

import uuid
from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from shared.models import Table


class Account(Table):
    """Somebody who logs in here and pays; its payments have its id as their customer.

    What says who it is is sealed; the email address is found by its fingerprint.
    """

    __tablename__ = "account"
    __table_args__ = (Index("uq_account_email_fingerprint", "email_fingerprint", unique=True),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv7: newest is greatest
    email_fingerprint: Mapped[bytes]  # of the case-folded address
    email_sealed: Mapped[bytes]
    name_sealed: Mapped[bytes]
    phone_sealed: Mapped[bytes]
    password_hash: Mapped[str]  # Argon2id, with its parameters
    created_at: Mapped[datetime]


class FailedLogins(Table):
    """How many logins of one email address, or from one network address, have failed in a stretch of time."""

    __tablename__ = "failed_logins"
    __table_args__ = (Index("ix_failed_logins_ends_at", "ends_at"),)

    subject: Mapped[bytes] = mapped_column(primary_key=True)  # a fingerprint: who it was is not told
    count: Mapped[int]
    ends_at: Mapped[datetime]  # then it is counted anew
