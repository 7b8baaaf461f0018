"""What a run works with: our worker, the gateway's books, and its turn at the gate before each look."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from payment_worker.processing import Worker
from payment_worker.reconciling import rows
from payment_worker.reconciling.comparing import Finding, compare, missing_there
from payment_worker.reconciling.rows import Owned
from shared.database import reading
from shared.gateways import GatewayUnavailable
from shared.gateways.ledger import Entry, Ledger, Thing

LOOKS = 4  # a payment that changes with each of them is on its way
ASK_AGAIN_S = 1.0

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One process's means to compare and to repair.

    A look that the gateway does not answer is made again for `patience_s` seconds.
    """

    worker: Worker
    ledger: Ledger
    patience_s: float = 0.0

    def ask(self, look: Callable[[], Seen]) -> Seen:
        """Look at the gateway, at the lowest priority and with no transaction open.

        Raises GatewayUnavailable.
        """
        until = time.monotonic() + self.patience_s
        while True:
            try:
                return self.worker.gate.look(look)
            except GatewayUnavailable:
                if time.monotonic() >= until:
                    raise
                time.sleep(ASK_AGAIN_S)

    def entry(self, thing: Thing, ref: str) -> Entry | None:
        """One object as the gateway has it now."""
        return self.ask(lambda: self.ledger.entry(thing, ref))

    def owned(self, entry: Entry, *, after_restore: bool) -> Owned | None:
        """Our rows of an object."""
        with reading(self.worker.sessions) as session:
            return rows.find(session, [entry], after_restore=after_restore).get(entry.ref)

    def of_payment(self, payment_id: uuid.UUID | None, *, after_restore: bool) -> Owned | None:
        """Our rows of a payment."""
        if payment_id is None:
            return None
        with reading(self.worker.sessions) as session:
            return rows.of_payment(session, payment_id, after_restore=after_restore)

    def examine(
        self, thing: Thing, ref: str, payment_id: uuid.UUID | None, *, after_restore: bool
    ) -> list[Finding]:
        """Compare one object as it is now with our rows, which did not change while it was looked at.

        A page shows its objects as they were a moment ago: nothing is a break before it was looked at so.
        """
        owned = self.of_payment(payment_id, after_restore=after_restore)
        for _ in range(LOOKS):
            before, entry = owned, self.entry(thing, ref)
            if entry is None:
                owned = self.of_payment(payment_id, after_restore=after_restore)
            else:
                owned = self.owned(entry, after_restore=after_restore)
            if _same(before, owned):
                if entry:
                    return compare(entry, owned)
                return missing_there(thing, ref, owned) if owned and _has(owned, ref) else []
        return []


def _same(before: Owned | None, now: Owned | None) -> bool:
    if before is None or now is None:
        return before is now
    return bool(before.payment.version == now.payment.version and before.payment.id == now.payment.id)


def _has(owned: Owned, ref: str) -> bool:
    """Whether our rows still say that there is such an object."""
    refs = {owned.payment.gateway_ref, owned.payment.transaction_id}
    return ref in refs | {each.gateway_ref for each in owned.operations}
