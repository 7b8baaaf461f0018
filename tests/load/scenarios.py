"""What the benchmark's customers do: charges, holds with their capture, charges with a refund."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Scenario(StrEnum):
    """One order from its first command to its last outcome."""

    CHARGE = "charge"
    HOLD = "hold"  # held, then captured in part
    REFUND = "refund"  # charged, then refunded in part


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a scenario goes, and how its order must stand in the end."""

    details: str = ""  # beside the order's own fields, as JSON members
    go_on_at: str | None = None  # the event at which the second command is sent
    then: str = ""  # the second command: its path below the payment
    body: str = ""
    ends_at: str = "payment-succeeded"
    status: str = "succeeded"
    captured_minor: int = 15000
    refunded_minor: int = 0
    topics: tuple[str, ...] = ("payment-succeeded",)  # of all events, sorted


COURSES: Final[Mapping[Scenario, Course]] = MappingProxyType(
    {
        Scenario.CHARGE: Course(),
        Scenario.HOLD: Course(
            details=',"captureMethod":"manual"',
            go_on_at="payment-authorized",
            then="capture",
            body='{"amount":100.00}',
            captured_minor=10000,
            topics=("payment-authorized", "payment-succeeded"),
        ),
        Scenario.REFUND: Course(
            go_on_at="payment-succeeded",
            then="refunds",
            body='{"amount":50.00}',
            ends_at="refund-succeeded",
            status="partially_refunded",
            refunded_minor=5000,
            topics=("payment-succeeded", "refund-succeeded"),
        ),
    }
)
CHARGES: Final = (Scenario.CHARGE,)
_C, _H, _R = Scenario.CHARGE, Scenario.HOLD, Scenario.REFUND
# 70 % charges, 15 % holds with their capture, 15 % charges with a refund; repeated without end.
MIXED: Final = (_C, _C, _H, _C, _C, _R, _C, _C, _C, _H, _C, _C, _R, _C, _C, _C, _H, _C, _C, _R)


def commands_each(mix: tuple[Scenario, ...]) -> float:
    """How many commands a scenario of the mix takes on average."""
    return sum(1 if COURSES[each].go_on_at is None else 2 for each in mix) / len(mix)
