"""What the customers do, how often, and how each order must end."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from deploy.local.demo.orders import Case
from deploy.local.ordering.payments import Order

PART: Final = Decimal("7.50")  # captured of a hold, or given back of a charge; every order is over more
AMOUNTS: Final = (20, 500)  # whole units: the simulated bank declines by the digits behind the point
DECLINED: Final = Decimal("0.13")


class Course(StrEnum):
    """How a customer goes about an order; by HTTP unless it says otherwise."""

    CHARGE = "charge"
    DECLINED = "declined charge"
    CAPTURE = "hold, captured in part"
    VOID = "hold, void"
    REFUND = "charge, two refunds"
    ASKED_CAPTURE = "hold and capture, by Kafka"
    ASKED_VOID = "hold and void, by Kafka"
    ASKED_REFUND = "charge, refund by Kafka"


SHARES: Final[Mapping[Course, int]] = MappingProxyType(
    {
        Course.CHARGE: 40,
        Course.DECLINED: 8,
        Course.CAPTURE: 12,
        Course.VOID: 8,
        Course.REFUND: 10,
        Course.ASKED_CAPTURE: 8,
        Course.ASKED_VOID: 6,
        Course.ASKED_REFUND: 8,
    }
)
HELD: Final = "payment-authorized"
PAID: Final = "payment-succeeded"
BACK: Final = "refund-succeeded"


@dataclass(frozen=True, slots=True)
class _Ending:
    expected: str = "succeeded"
    is_held: bool = False
    captured: Decimal | None = None
    refunded: Decimal = Decimal(0)
    events: tuple[str, ...] = ()


_CAPTURED = _Ending(is_held=True, captured=PART, events=(HELD, PAID))
_VOID = _Ending("cancelled", is_held=True, events=(HELD, "payment-cancelled"))
_ENDINGS: Final[Mapping[Course, _Ending]] = MappingProxyType(
    {
        Course.CHARGE: _Ending(),
        Course.DECLINED: _Ending("failed"),
        Course.CAPTURE: _CAPTURED,
        Course.VOID: _VOID,
        Course.REFUND: _Ending("partially_refunded", refunded=2 * PART, events=(PAID, BACK, BACK)),
        Course.ASKED_CAPTURE: _CAPTURED,
        Course.ASKED_VOID: _VOID,
        Course.ASKED_REFUND: _Ending("partially_refunded", refunded=PART, events=(PAID, BACK)),
    }
)


def choose(lots: random.Random) -> Course:
    """Draw a course, each by its share."""
    return lots.choices(tuple(SHARES), tuple(SHARES.values()))[0]


def new_case(course: Course, lots: random.Random) -> Case:
    """A new order of this course, over an amount that is drawn."""
    ending = _ENDINGS[course]
    amount = Decimal(lots.randint(*AMOUNTS)) + (DECLINED if course is Course.DECLINED else 0)
    back = ending.refunded
    return Case(
        order=Order(amount=amount, details={"captureMethod": "manual"} if ending.is_held else {}),
        label=str(course),
        expected=ending.expected,
        captured=amount if back else ending.captured,
        refunded=back,
        events=ending.events,
    )
