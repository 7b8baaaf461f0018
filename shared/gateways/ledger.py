"""The gateway's books, to be compared with ours: everything that it has made, in pages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class Thing(StrEnum):
    """What stands in the gateway's books."""

    INTENT = "payment_intent"
    CHARGE = "charge"
    REFUND = "refund"


class Standing(StrEnum):
    """How it stands there."""

    DONE = "done"  # the money is taken, or given back
    HELD = "held"
    VOID = "void"  # given up, or a hold that was let go
    FAILED = "failed"
    OPEN = "open"  # the customer, a bank or the gateway itself has still to act


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object of the gateway's.

    Amounts are in our minor units, and None where the gateway's cannot be told in them: a currency that we do
    not know, a fraction. `returned_minor` is what was given back of a charge; what was released of a hold is
    none. `ids` are those that we gave it.
    """

    thing: Thing
    ref: str
    created_at: datetime
    standing: Standing
    status: str  # in the gateway's words
    currency: str
    amount_minor: int | None
    taken_minor: int | None = None
    returned_minor: int | None = None
    intent_ref: str | None = None  # the PaymentIntent that it belongs to, or is
    charge_ref: str | None = None
    # Of a PaymentIntent: whether its money is held first, and whose saved card it uses.
    holds: bool = False
    customer_ref: str | None = None
    ids: Mapping[str, str] = field(default_factory=dict)

    @property
    def bears_money(self) -> bool:
        """Whether money of the customer's is taken or held by it at this moment."""
        if self.standing is Standing.HELD:
            return True
        return self.standing is Standing.DONE and (self.taken_minor or 0) > (self.returned_minor or 0)

    def evidence(self) -> dict[str, Any]:
        """What is worth keeping, as JSON can hold it."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
            if value is not None
        }

    @classmethod
    def from_evidence(cls, kept: Mapping[str, Any]) -> "Entry":
        """The entry that this evidence was made of."""
        at, thing = datetime.fromisoformat(kept["created_at"]), Thing(kept["thing"])
        words = {"created_at": at, "thing": thing, "standing": Standing(kept["standing"])}
        return cls(**{**kept, **words})


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, newest first, and the cursor for those after them; None at the end."""

    entries: list[Entry]
    after: str | None


class Ledger(Protocol):
    """The gateway's books, read only. Every method raises GatewayUnavailable when it cannot be asked."""

    def page(self, thing: Thing, since: datetime, until: datetime, after: str | None) -> Page:
        """What was made from `since` on and before `until`, newest first, from a cursor on."""

    def entry(self, thing: Thing, ref: str) -> Entry | None:
        """One object as it is now; None when the gateway certainly has none of this id."""
