"""Collect what one transaction writes and send it as a single statement.

Between two statements of a transaction a process waits for the server while others run, and comes back to
cold caches: under load that costs more than the statements themselves.
"""

from typing import Any, NamedTuple

from sqlalchemy import CTE, Connection, Select, Update, bindparam, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import class_mapper
from sqlalchemy.orm.attributes import instance_state, set_committed_value

from shared.models import Operation, Outbox, Payment, TimelineEntry, plain
from shared.models_notifications import (
    EndpointState,
    NotificationEndpoint,
    NotificationEvent,
    OrderCallback,
)

Row = Payment | Operation
Model = type[Payment] | type[Operation] | type[TimelineEntry] | type[Outbox] | type[OrderCallback]

# What must still be as it was read for a row to be written.
READ = "read_"
GUARDS: dict[Model, tuple[str, ...]] = {Payment: ("version",), Operation: ("attempt", "state")}


class Shape(NamedTuple):
    """What a write looks like without its values: enough to make its statement once."""

    model: Model
    is_insert: bool
    keys: tuple[str, ...]


_statements: dict[tuple[Shape, ...], Select[Any]] = {}


class Overwritten(Exception):
    """Rows that were locked are not as they were read; nothing was written."""


class Writes:
    """Rows to add and to change, in one payment's life; `send` writes all of them or none."""

    def __init__(self) -> None:
        """Nothing is to be written yet."""
        self._parts: list[tuple[Shape, dict[str, Any]]] = []
        self._changed: list[tuple[Row, dict[str, Any]]] = []

    def add(self, model: Model, values: dict[str, Any]) -> None:
        """Insert a row of these attributes; what is left out or None becomes null or the server's default."""
        # Past 50 parameters the driver no longer remembers how it has read a statement.
        given = {key: value for key, value in values.items() if value is not None}
        self._parts.append((Shape(model, is_insert=True, keys=tuple(given)), given))

    def change(self, *rows: Row) -> None:
        """Update what was changed on rows that belong to no session; once sent they count as unchanged.

        A payment is written only over the version that was read; an operation alone only over the attempt and
        the state.
        """
        for row in rows:
            before = instance_state(row).committed_state
            changes = {key: getattr(row, key) for key, old in before.items() if old != getattr(row, key)}
            if changes:
                guards = GUARDS[type(row)]
                read = {f"{READ}{key}": before.get(key, getattr(row, key)) for key in guards}
                values = {**changes, "id": row.id, **read}
                self._parts.append((Shape(type(row), is_insert=False, keys=tuple(values)), values))
                self._changed.append((row, changes))

    def send(self, connection: Connection) -> bool:
        """Write everything, or nothing: False when the payment is not as it was read, or stands in the way.

        A new payment does not come about while the order or cart has a live one; this waits for one that is
        just being made.
        """
        if not self._parts:
            return True
        # The payment first: its row is the one that everything else waits for and depends on.
        parts = sorted(self._parts, key=lambda part: (part[0].model is not Payment, part[0].is_insert))
        shapes = tuple(shape for shape, _ in parts)
        values = {
            f"w{n}_{key}": value
            for n, (_, row) in enumerate(parts)
            for key, value in row.items()
            if n == 0 or not key.startswith(READ)
        }
        if shapes not in _statements:
            _statements[shapes] = _statement(shapes)
        if not connection.execute(_statements[shapes], values).scalar():
            return False
        for row, changes in self._changed:
            for key, value in changes.items():
                set_committed_value(row, key, value)
        return True

    def send_locked(self, connection: Connection) -> None:
        """As `send`, over rows that have been locked since they were read.

        Raises Overwritten where they were not: what the gateway has said must not be dropped in silence.
        """
        if not self.send(connection):
            raise Overwritten


def _statement(shapes: tuple[Shape, ...]) -> Select[Any]:
    """One SELECT whose WITH clause holds every write; the later ones happen only if the first one did."""
    first = _first(shapes[0]).cte("w0")
    others: list[CTE] = []
    event_before = first
    for number, shape in enumerate(shapes):
        if number:
            # Events take their numbers one after the other: PostgreSQL is free to run the writes in any
            # order but for those that wait for another's result.
            is_event = shape.model is Outbox
            others.append(_dependent(number, shape, event_before if is_event else first))
            if is_event:
                event_before = others[-1]
                others.append(_notification(number, event_before))
    return select(func.count()).select_from(first).add_cte(*others)


def _columns(shape: Shape, number: int) -> dict[Any, Any]:
    attributes = class_mapper(shape.model).column_attrs
    columns = {key: attributes[key].columns[0] for key in shape.keys if key in attributes}
    return {
        column: bindparam(f"w{number}_{key}", type_=column.type)
        for key, column in columns.items()
        if shape.is_insert or key != "id"
    }


def _update(shape: Shape, number: int) -> Update:
    table = plain(shape.model)
    statement = update(table).where(table.c.id == bindparam(f"w{number}_id", type_=table.c.id.type))
    # Only the first write is guarded; the others depend on it.
    for key in GUARDS[shape.model] if number == 0 else ():
        column = table.c[key]
        statement = statement.where(column == bindparam(f"w{number}_{READ}{key}", type_=column.type))
    return statement.values(_columns(shape, number))


def _first(shape: Shape) -> Any:
    table = plain(shape.model)
    if shape.is_insert:
        added = insert(table).values(_columns(shape, 0)).on_conflict_do_nothing()
        return added.returning(*table.primary_key)
    return _update(shape, 0).returning(table.c.id)


def _dependent(number: int, shape: Shape, before: CTE) -> CTE:
    happened = exists(select(1).select_from(before))
    if not shape.is_insert:
        return _update(shape, number).where(happened).cte(f"w{number}")
    columns = _columns(shape, number)
    values = select(*columns.values()).where(happened)
    table = plain(shape.model)
    added = insert(table).from_select([column.name for column in columns], values)
    told = _OF_AN_EVENT if shape.model is Outbox else table.primary_key
    return added.returning(*told).cte(f"w{number}")


_OUTBOX = plain(Outbox)
_OF_AN_EVENT = [_OUTBOX.c[name] for name in ("id", "position", "aggregateid", "sequence", "type")]
_OF_A_NOTIFICATION = ["event_id", "position", "payment_id", "sequence", "type"]


def _notification(number: int, event: CTE) -> CTE:
    """Keep an event for those who are told by webhook; with nobody to tell it is two looks into an index."""
    endpoint, callback = plain(NotificationEndpoint), plain(OrderCallback)
    is_wanted = or_(
        exists().where(endpoint.c.state == EndpointState.ENABLED),
        exists().where(callback.c.payment_id == event.c.aggregateid),
    )
    rows = select(*(event.c[each.name] for each in _OF_AN_EVENT)).where(is_wanted)
    return insert(plain(NotificationEvent)).from_select(_OF_A_NOTIFICATION, rows).cte(f"n{number}")
