"""Take a bearer token back before it expires, and look whether one was."""

from datetime import datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from shared.database import Sessions, alone
from shared.models import plain
from shared.models_access import RevokedToken

_TABLE = plain(RevokedToken)
_LOOK = select(_TABLE.c.token_id).where(_TABLE.c.token_id == bindparam("token_id"))


def revoke(sessions: Sessions, token_id: str, expires_at: datetime) -> None:
    """Refuse this token from now on, in every process; does nothing when that is done already.

    `token_id` is what `payment_api.principal.Principal` calls so. Once `expires_at` is past, nobody takes the
    token anyway, and the row is purged.
    """
    row = {"token_id": token_id, "expires_at": expires_at, "revoked_at": func.now()}
    with alone(sessions) as connection:
        connection.execute(insert(_TABLE).values(row).on_conflict_do_nothing())


def is_revoked(sessions: Sessions, token_id: str) -> bool:
    """Whether this token was taken back: one look at a primary key."""
    with alone(sessions) as connection:
        return connection.execute(_LOOK, {"token_id": token_id}).first() is not None
