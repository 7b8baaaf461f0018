"""What the customers do, how often, and how each order must end."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from deploy.local.demo.orders import Case
from deploy.local.ordering import Order

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
    INITIATED = "payment-initiated"
    INITIATED_DECLINED = "payment-initiated, declined"
    SUBSCRIBED = "subscription with a saved card"
    EXPIRED = "hold, reservation expired"
    EXPIRED_AT_ONCE = "hold, reservation expired at once"
    DELIVERED = "delivery, order told"
    DELIVERED_DECLINED = "delivery, declined"


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
        Course.INITIATED: 12,
        Course.INITIATED_DECLINED: 4,
        Course.SUBSCRIBED: 8,
        Course.EXPIRED: 8,
        Course.EXPIRED_AT_ONCE: 6,
        Course.DELIVERED: 10,
        Course.DELIVERED_DECLINED: 4,
    }
)
# Whose outcome the catalog hears in its own words; of which orders the delivery contract's service is told.
CATALOG: Final = frozenset({Course.INITIATED, Course.INITIATED_DECLINED, Course.SUBSCRIBED})
TOLD_BACK: Final = frozenset({Course.DELIVERED, Course.DELIVERED_DECLINED})
IS_DECLINED: Final = frozenset({Course.DECLINED, Course.INITIATED_DECLINED, Course.DELIVERED_DECLINED})
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
_DECLINED = _Ending("failed")
_ENDINGS: Final[Mapping[Course, _Ending]] = MappingProxyType(
    {
        Course.CHARGE: _Ending(),
        Course.DECLINED: _DECLINED,
        Course.CAPTURE: _CAPTURED,
        Course.VOID: _VOID,
        Course.REFUND: _Ending("partially_refunded", refunded=2 * PART, events=(PAID, BACK, BACK)),
        Course.ASKED_CAPTURE: _CAPTURED,
        Course.ASKED_VOID: _VOID,
        Course.ASKED_REFUND: _Ending("partially_refunded", refunded=PART, events=(PAID, BACK)),
        Course.INITIATED: _Ending(),
        Course.INITIATED_DECLINED: _DECLINED,
        Course.SUBSCRIBED: _Ending(),
        Course.EXPIRED: _VOID,
        Course.EXPIRED_AT_ONCE: _Ending("cancelled", is_held=True),
        Course.DELIVERED: _Ending(),
        Course.DELIVERED_DECLINED: _DECLINED,
    }
)
# An expiry may come before or after the hold has come about.
MAY_BE_HEARD: Final[Mapping[Course, frozenset[str]]] = MappingProxyType(
    {Course.EXPIRED_AT_ONCE: frozenset({HELD})}
)


def choose(lots: random.Random) -> Course:
    """Draw a course, each by its share."""
    return lots.choices(tuple(SHARES), tuple(SHARES.values()))[0]


def new_case(course: Course, lots: random.Random) -> Case:
    """A new order of this course, over an amount that is drawn."""
    ending = _ENDINGS[course]
    amount = Decimal(lots.randint(*AMOUNTS)) + (DECLINED if course in IS_DECLINED else 0)
    back = ending.refunded
    return Case(
        order=Order(amount=amount, details={"captureMethod": "manual"} if ending.is_held else {}),
        label=str(course),
        expected=ending.expected,
        captured=amount if back else ending.captured,
        refunded=back,
        events=ending.events,
    )
