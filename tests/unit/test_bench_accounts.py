"""The benchmark misses nothing: an order counts as accounted for only when all of its scenario came about."""

import multiprocessing
from dataclasses import replace
from typing import Any

import pytest

from deploy.local.demo.rows import PaymentRow
from tests.audit_rows import BACK, payment, refund_row
from tests.load.accounts import Books, unaccounted
from tests.load.arrivals import Arrival
from tests.load.outcomes import Outcomes, Seen
from tests.load.scenarios import COURSES, MIXED, Scenario, commands_each

REFUNDED = [payment(**BACK), refund_row()]
HEARD = ("payment-succeeded", "refund-succeeded")


def arrival(**overrides: Any) -> Arrival:
    """An order that is charged and refunded in part; both commands were accepted."""
    return replace(Arrival("order_a", Scenario.REFUND, 0.0, status=202, then_status=202), **overrides)


def heard(*topics: str) -> Outcomes:
    """What was heard of the order, each event under an id of its own."""
    outcomes = Outcomes(multiprocessing.Queue())
    outcomes.by_order["order_a"] = [Seen("order_a", "a", topic, "op", topic, 0.0, {}) for topic in topics]
    return outcomes


def is_accounted(
    one: Arrival, rows: list[PaymentRow], *topics: str, wrong: frozenset[str] = frozenset()
) -> bool:
    """Whether the benchmark finds nothing missing."""
    return not unaccounted([one], Books({"order_a": rows}, set(wrong), 0), heard(*topics))


def test_a_scenario_that_came_about_is_accounted_for() -> None:
    """Charged, refunded in part, both announced."""
    assert is_accounted(arrival(), REFUNDED, *HEARD)


def test_an_order_that_was_refused_must_leave_nothing() -> None:
    """It is accounted for without a payment, and not with one that never went on."""
    refused = arrival(status=503, then_status=None)
    assert is_accounted(refused, [])
    assert not is_accounted(refused, [payment()], "payment-succeeded")


@pytest.mark.parametrize(
    ("rows", "topics"),
    [
        ([], HEARD),
        ([payment()], HEARD),
        (REFUNDED, ("payment-succeeded",)),
        (REFUNDED, (*HEARD, "payment-failed")),
        ([*REFUNDED, payment(payment_id="b")], HEARD),
        ([payment(**BACK | {"refunded_minor": 4000})], HEARD),
        ([payment(**BACK | {"amount_minor": 16000})], HEARD),
    ],
)
def test_whatever_is_missing_or_too_much_is_found(rows: list[PaymentRow], topics: tuple[str, ...]) -> None:
    """No payment, no refund, an event too few or too many, two payments, other amounts."""
    assert not is_accounted(arrival(), rows, *topics)


def test_what_the_audit_contradicts_is_unaccounted_for() -> None:
    """Rows that look right do not count against the gateway's ledger or Kafka."""
    assert not is_accounted(arrival(), REFUNDED, *HEARD, wrong=frozenset({"a"}))


def test_a_scenario_is_accepted_with_its_last_command() -> None:
    """A refund that was refused makes no accepted scenario; a charge has no second command."""
    assert arrival().accepted
    assert not arrival(then_status=503).accepted
    assert not arrival(then_status=None).accepted
    assert arrival(scenario=Scenario.CHARGE, then_status=None).accepted


def test_the_mix_is_as_the_table_says() -> None:
    """70 % charges, 15 % holds with a capture, 15 % charges with a refund: 1.3 commands each."""
    shares = {each: MIXED.count(each) / len(MIXED) for each in COURSES}
    assert shares == {Scenario.CHARGE: 0.7, Scenario.HOLD: 0.15, Scenario.REFUND: 0.15}
    assert commands_each(MIXED) == pytest.approx(1.3)
