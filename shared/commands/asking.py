"""Have the gateway do something exactly once within a request, though an answer may be lost."""

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, func, update

from shared.database import Sessions
from shared.gateways import GatewayUnavailable
from shared.gateways.customers import GatewayBusy
from shared.models_customers import Customer, SavedCard

PATIENCE_S = 10.0  # a repeat of the request goes on where this one gave up
ASK_AGAIN_S = 0.1
KEY_LASTS = timedelta(hours=23)  # the gateway keeps keys for 24 hours

Answer = TypeVar("Answer")


def until_known(attempt: Callable[[], Answer | None]) -> Answer:
    """Return the attempt's answer; it is made again when it has none yet or the gateway is busy.

    Raises GatewayUnavailable when patience ends, and what the attempt raises.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            if (answer := attempt()) is not None:
                return answer
        except GatewayBusy:
            if time.monotonic() > until:
                raise
        if time.monotonic() > until:
            raise GatewayUnavailable("the gateway gives no clear answer")
        time.sleep(ASK_AGAIN_S)


def key_is_old(model: type[Customer | SavedCard]) -> ColumnElement[bool]:
    """Whether the gateway may have forgotten a row's key, so that asking under it could do things twice."""
    return func.clock_timestamp() - model.key_since > KEY_LASTS


def renew_key(sessions: Sessions, model: type[Customer | SavedCard], row_id: uuid.UUID, number: int) -> None:
    """Ask under a new key from now on: under key `number` nothing was done. Only one of many renews it."""
    values = {"key_number": number + 1, "key_since": func.clock_timestamp()}
    with sessions.begin() as session:
        session.execute(update(model).where(model.id == row_id, model.key_number == number).values(values))
