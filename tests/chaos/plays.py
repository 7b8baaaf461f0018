"""Who does what in each course."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from deploy.local.demo.orders import Case
from tests.chaos import doors
from tests.chaos.courses import Course
from tests.chaos.customers import Customers, Refused

Play = Callable[[Customers, Case, str], Awaitable[object]]
PLAYS: Final[Mapping[Course, Play]] = MappingProxyType(
    {
        Course.CHARGE: Customers.charge,
        Course.DECLINED: Customers.charge,
        Course.CAPTURE: Customers.capture,
        Course.VOID: Customers.void,
        Course.REFUND: Customers.refund,
        Course.ASKED_CAPTURE: Customers.ask_to_capture,
        Course.ASKED_VOID: Customers.ask_to_void,
        Course.ASKED_REFUND: Customers.ask_to_refund,
        Course.INITIATED: doors.initiate,
        Course.INITIATED_DECLINED: doors.initiate,
        Course.SUBSCRIBED: doors.subscribe,
        Course.EXPIRED: doors.let_expire,
        Course.EXPIRED_AT_ONCE: doors.let_expire_at_once,
        Course.DELIVERED: doors.deliver,
        Course.DELIVERED_DECLINED: doors.deliver,
    }
)


async def play(customers: Customers, course: Course, case: Case, prefer: str) -> None:
    """Take an order to its end, however long that takes; what goes wrong for good is in `refused`."""
    try:
        await PLAYS[course](customers, case, prefer)
    except Refused as refusal:
        customers.refused.append(f"order {case.order.order_id}, {course}: {refusal}")
    finally:
        customers.news.forget(case.order.order_id)
