"""Seal what earlier releases stored readable, and seal anew what is under the key before, in batches."""

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, LargeBinary, Text, Uuid, func, null, or_, select, type_coerce, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from shared.commands.accounts import EMAIL as ACCOUNT_EMAIL
from shared.commands.accounts import NAME as ACCOUNT_NAME
from shared.commands.accounts import PHONE as ACCOUNT_PHONE
from shared.commands.cards import TOKEN
from shared.commands.customers import EMAIL
from shared.commands.endpoints import SECRET_IS_ABOUT
from shared.database import Sessions, reading
from shared.documents import render_json
from shared.models import Operation, Payment, Table
from shared.models_accounts import Account
from shared.models_customers import Customer, SavedCard
from shared.models_notifications import NotificationEndpoint, OrderCallback
from shared.notifications import ORDER_TOKEN
from shared.sealing import Sealer

BATCH = 500  # a short transaction: it holds up no other writer for long

Column = InstrumentedAttribute[Any]


class Value(NamedTuple):
    """A value that is stored sealed: its columns, and what it is about."""

    sealed: Column
    about: str
    plain: Column | None = None
    fingerprint: Column | None = None


class Resealed(NamedTuple):
    """A table, its key, and the values in it."""

    model: type[Table]
    key: Column
    values: tuple[Value, ...]


RESEALED = (
    Resealed(
        Payment,
        Payment.id,
        (Value(Payment.payment_method_sealed, "payment.payment_method", Payment.payment_method_plain),),
    ),
    Resealed(
        Operation,
        Operation.id,
        (Value(Operation.request_sealed, "operation.request", Operation.request_plain),),
    ),
    Resealed(
        Customer,
        Customer.id,
        (
            Value(Customer.email_sealed, EMAIL, Customer.email_plain, Customer.email_fingerprint),
            Value(Customer.name_sealed, "customer.name", Customer.name_plain),
        ),
    ),
    Resealed(
        SavedCard,
        SavedCard.id,
        (
            Value(SavedCard.token_sealed, TOKEN, SavedCard.token_plain, SavedCard.token_fingerprint),
            Value(
                SavedCard.cardholder_name_sealed,
                "saved_card.cardholder_name",
                SavedCard.cardholder_name_plain,
            ),
        ),
    ),
    Resealed(
        Account,
        Account.id,
        (
            Value(Account.email_sealed, ACCOUNT_EMAIL, fingerprint=Account.email_fingerprint),
            Value(Account.name_sealed, ACCOUNT_NAME),
            Value(Account.phone_sealed, ACCOUNT_PHONE),
        ),
    ),
    Resealed(
        NotificationEndpoint,
        NotificationEndpoint.id,
        (
            Value(NotificationEndpoint.sealed_secret, SECRET_IS_ABOUT),
            Value(NotificationEndpoint.previous_sealed_secret, SECRET_IS_ABOUT),
        ),
    ),
    Resealed(OrderCallback, OrderCallback.payment_id, (Value(OrderCallback.sealed_token, ORDER_TOKEN),)),
)


def reseal(
    sessions: Sessions, sealer: Sealer, seen: Callable[[str, int], None], *, dry_run: bool = False
) -> int:
    """Bring every stored value under the current key; return how many rows were changed, or would be.

    `seen` is told of each table and its count as it grows. It may be stopped and begun again at any time,
    and beside running processes. Raises CannotOpen for what is under neither key.
    """
    total = 0
    for each in RESEALED:
        count, after = 0, uuid.UUID(int=0)
        while last := _end_of_batch(sessions, each, after):
            with sessions.begin() as session:
                rows = _stale(session, each, sealer, after, last)
                for row in rows if not dry_run else ():
                    _change(session, each, sealer, row)
            count, after = count + len(rows), last
            seen(each.model.__tablename__, count)
        total += count
    return total


def _end_of_batch(sessions: Sessions, what: Resealed, after: uuid.UUID) -> uuid.UUID | None:
    """The last of the next rows, stale or not, so that no statement looks at more; None after the last."""
    ids = select(what.key.label("id")).where(what.key > after).order_by(what.key).limit(BATCH)
    with reading(sessions) as session:
        return session.scalar(select(func.max(ids.subquery().c.id.cast(Text)).cast(Uuid)))


def _stale(
    session: Session, what: Resealed, sealer: Sealer, after: uuid.UUID, last: uuid.UUID
) -> list[dict[str, Any]]:
    """The rows of a batch, locked, with a value that is readable or under another key: raw, as stored."""
    columns: list[ColumnElement[Any]] = [what.key.label("id")]
    head, is_stale = sealer.current_head, []
    for value in what.values:
        raw = type_coerce(value.sealed, LargeBinary)
        columns.append(raw.label(value.sealed.key))
        is_stale.append(func.substr(raw, 1, len(head)) != head)
        if value.plain is not None:
            columns.append(value.plain.label(value.plain.key))
            is_stale.append(value.plain.is_not(None))
    query = select(*columns).where(what.key > after, what.key <= last, or_(*is_stale))
    return [dict(row) for row in session.execute(query.with_for_update()).mappings()]


def _change(session: Session, what: Resealed, sealer: Sealer, row: dict[str, Any]) -> None:
    changes: dict[Any, Any] = {}
    for value in what.values:
        text = _text(value, sealer, row)
        if text is None:
            continue
        changes[value.sealed] = type_coerce(sealer.seal(text, value.about), LargeBinary)
        if value.plain is not None:
            changes[value.plain] = null()
        if value.fingerprint is not None:
            changes[value.fingerprint] = sealer.fingerprint(text, value.about)
    session.execute(update(what.model).where(what.key == row["id"]).values(changes))


def _text(value: Value, sealer: Sealer, row: dict[str, Any]) -> str | None:
    if sealed := row[value.sealed.key]:
        return sealer.open(sealed, value.about)
    plain = row[value.plain.key] if value.plain is not None else None
    return plain if plain is None or isinstance(plain, str) else render_json(plain)
