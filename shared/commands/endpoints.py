"""What subscribers may ask: register an endpoint, change it, replace its secret, let go of it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.commands.deliveries import drop_waiting, make_due
from shared.database import Sessions, new_id
from shared.models_notifications import (
    EndpointState,
    NotificationEndpoint,
)
from shared.notifications import PREVIOUS_SIGNS_FOR, new_secret
from shared.outbound import Caller, Forbidden
from shared.payments import InvalidCommand, PaymentError
from shared.sealing import Sealer

MAX_ENDPOINTS = 20  # of one owner
SECRET_IS_ABOUT = "notification_endpoint.secret"  # noqa: S105 - what the sealed value belongs to


class EndpointNotFound(PaymentError):
    """There is no such endpoint that the caller may see."""

    code = "ENDPOINT_NOT_FOUND"


class EndpointConflict(PaymentError):
    """The caller has an endpoint with this address, or too many of them."""

    code = "ENDPOINT_CONFLICT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an endpoint is to be; the fields by name, and only those that are to be set."""

    fields: dict[str, Any]

    @property
    def columns(self) -> dict[str, Any]:
        """As the table has it; `enabled` is worked in by itself."""
        return {name: value for name, value in self.fields.items() if name != "enabled"}


def add_endpoint(
    sessions: Sessions, wish: Wish, owner: str, caller: Caller, sealer: Sealer
) -> tuple[NotificationEndpoint, str]:
    """Register an endpoint and return it with its secret, which is shown this once.

    Raises InvalidCommand for an address that may not be called, EndpointConflict for a second endpoint with
    the same address or one too many.
    """
    check_url(caller, wish.fields["url"])
    secret = new_secret()
    endpoint = NotificationEndpoint(
        id=new_id(),
        owner=owner,
        **wish.columns,
        state=EndpointState.ENABLED,
        sealed_secret=sealer.seal(secret, SECRET_IS_ABOUT),
        failures=0,
        created_at=func.clock_timestamp(),
    )
    with sessions.begin() as session:
        mine = select(func.count()).select_from(NotificationEndpoint).where(*_live(owner))
        if session.scalars(mine).one() >= MAX_ENDPOINTS:
            raise EndpointConflict(f"There are {MAX_ENDPOINTS} endpoints already; remove one")
        session.add(endpoint)
        _flush(session)
        session.refresh(endpoint)
    return endpoint, secret


def change_endpoint(
    sessions: Sessions, endpoint_id: uuid.UUID, owner: str | None, wish: Wish, caller: Caller
) -> NotificationEndpoint:
    """Change what is given; `enabled` true lets go on what waits. `owner` None: whoever's it is.

    Raises EndpointNotFound, InvalidCommand and EndpointConflict; nothing is changed then.
    """
    if "url" in wish.fields:
        check_url(caller, wish.fields["url"])
    with sessions.begin() as session:
        endpoint = find_endpoint(session, endpoint_id, owner, lock=True)
        for name, value in wish.columns.items():
            setattr(endpoint, name, value)
        if "enabled" in wish.fields:
            _switch(endpoint, on=wish.fields["enabled"])
            if wish.fields["enabled"]:
                make_due(session, endpoint_id)
        _flush(session)
        session.refresh(endpoint)
        return endpoint


def renew_secret(
    sessions: Sessions, endpoint_id: uuid.UUID, owner: str | None, sealer: Sealer
) -> tuple[NotificationEndpoint, str]:
    """Give an endpoint a new secret, which is shown this once; the one before signs beside it for a day.

    Raises EndpointNotFound.
    """
    secret = new_secret()
    with sessions.begin() as session:
        endpoint = find_endpoint(session, endpoint_id, owner, lock=True)
        endpoint.previous_sealed_secret = endpoint.sealed_secret
        endpoint.previous_until = func.clock_timestamp() + PREVIOUS_SIGNS_FOR
        endpoint.sealed_secret = sealer.seal(secret, SECRET_IS_ABOUT)
        session.flush()
        session.refresh(endpoint)
        return endpoint, secret


def remove_endpoint(sessions: Sessions, endpoint_id: uuid.UUID, owner: str | None) -> None:
    """Let go of an endpoint: what waits for it is dropped. Raises EndpointNotFound."""
    with sessions.begin() as session:
        endpoint = find_endpoint(session, endpoint_id, owner, lock=True)
        endpoint.state = EndpointState.REMOVED
        endpoint.disabled_at = None
    with sessions.begin() as session:
        drop_waiting(session)


def find_endpoint(
    session: Session, endpoint_id: uuid.UUID, owner: str | None, *, lock: bool = False
) -> NotificationEndpoint:
    """The endpoint of this id and owner; with `owner` None whoever's it is. Raises EndpointNotFound."""
    query = select(NotificationEndpoint).where(NotificationEndpoint.id == endpoint_id, *_live(owner))
    found = session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise EndpointNotFound("Endpoint not found")
    return found


def list_endpoints(session: Session, owner: str | None, limit: int) -> Sequence[NotificationEndpoint]:
    """The endpoints of an owner, or everybody's, oldest first."""
    query = select(NotificationEndpoint).where(*_live(owner)).order_by(NotificationEndpoint.id)
    return session.scalars(query.limit(limit)).all()


def check_url(caller: Caller, url: str) -> None:
    """Raises InvalidCommand for an address that may not be called."""
    try:
        caller.check(url)
    except Forbidden as error:
        raise InvalidCommand("url", str(error)) from None


def signing_secrets(endpoint: NotificationEndpoint, at: datetime, sealer: Sealer) -> list[str]:
    """The secrets that sign at this time, the newest first. Raises CannotOpen."""
    sealed = [endpoint.sealed_secret]
    if endpoint.previous_sealed_secret and endpoint.previous_until and at < endpoint.previous_until:
        sealed.append(endpoint.previous_sealed_secret)
    return [sealer.open(each, SECRET_IS_ABOUT) for each in sealed]


def _live(owner: str | None) -> list[ColumnElement[bool]]:
    conditions = [NotificationEndpoint.state != EndpointState.REMOVED]
    return conditions if owner is None else [*conditions, NotificationEndpoint.owner == owner]


def _switch(endpoint: NotificationEndpoint, *, on: bool) -> None:
    if on:
        endpoint.state, endpoint.disabled_at, endpoint.disabled_reason = EndpointState.ENABLED, None, None
        endpoint.failing_since, endpoint.failures = None, 0
    elif endpoint.state != EndpointState.DISABLED:
        endpoint.state = EndpointState.DISABLED
        endpoint.disabled_at = func.clock_timestamp()
        endpoint.disabled_reason = "by its owner"


def _flush(session: Session) -> None:
    try:
        session.flush()
    except IntegrityError:
        raise EndpointConflict("url: there is an endpoint with this address already") from None
