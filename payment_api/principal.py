"""Who asks: every request to a route that is not open to all has a principal."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import cast

import flask


class Role(StrEnum):
    """What a caller is to the payments."""

    CUSTOMER = "customer"  # pays: sees and makes its own payments, and no others
    SERVICE = "service"  # a part of the shop, acting for every customer
    MERCHANT = "merchant"  # a person of the shop
    OPERATOR = "operator"  # runs this service


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request; idempotency keys and the history are in its name."""

    id: str
    role: Role
    scopes: frozenset[str] = frozenset()
    # The token that says so, and when it expires: what it takes to revoke it. None without a token.
    token_id: str | None = None
    expires_at: datetime | None = None

    def owns(self, customer_id: str | None) -> bool:
        """Whether this customer's payments are the caller's to see and to make."""
        return self.role is not Role.CUSTOMER or customer_id == self.id


LOCAL = Principal("local", Role.OPERATOR)  # who sends no token where none is required


def current_principal() -> Principal:
    """The caller of this request. There is none on a route that is open to all."""
    return cast("Principal", flask.g.principal)
