"""What an operator has at hand: halting kinds of operations, and the whole story of one payment."""

import uuid

import pytest

from payment_worker.figures import Figures
from payment_worker.recovery import take_due
from shared.commands.pause import paused
from shared.payments import CaptureMethod, OperationKind, Status
from shared.wakeup import connect_redis
from tests.factories import new_uuid
from tests.life import cancel, capture, hold, operation_of, refund
from tests.operating import operate
from tests.worker import Bench

CHARGE, AUTHORIZE, CAPTURE = OperationKind.CHARGE, OperationKind.AUTHORIZE, OperationKind.CAPTURE
CANCEL, REFUND = OperationKind.CANCEL, OperationKind.REFUND


def one_of_each(bench: Bench) -> dict[OperationKind, uuid.UUID]:
    """An operation of every kind that waits for its turn."""
    charged = bench.order()
    bench.attempt(charged)
    asked = {
        REFUND: refund(bench, charged, 100).id,
        CAPTURE: capture(bench, hold(bench)).id,
        CANCEL: operation_of(cancel(bench, hold(bench))).id,
        CHARGE: bench.order(),
        AUTHORIZE: bench.order(capture_method=CaptureMethod.MANUAL),
    }
    for each in asked.values():
        bench.make_due(each)
    return asked


@pytest.mark.parametrize(
    ("words", "halted"),
    [
        (["--kind", "charge"], {CHARGE, AUTHORIZE}),
        (["--kind", "capture"], {CAPTURE}),
        (["--kind", "cancel"], {CANCEL}),
        (["--kind", "refund"], {REFUND}),
        ([], set(OperationKind)),
    ],
)
def test_what_is_paused_is_neither_dispatched_nor_claimed(
    bench: Bench, words: list[str], halted: set[OperationKind]
) -> None:
    """Holds halt with charges, cancels of holds on their own; the figures say the same; resume ends it."""
    asked = one_of_each(bench)
    sent = len(bench.gateway.keys)
    assert operate("pause", *words)[0] == 0
    assert set(paused(bench.sessions)) == halted
    figures = Figures(bench.sessions, connect_redis(bench.settings.redis_url)).collect()
    (shown,) = [family for family in figures if family.name == "payment_paused"]
    assert {each.labels["kind"] for each in shown.samples if each.value} == halted

    for kind in halted:
        assert bench.attempt(asked[kind]) is None
    assert {each.kind for each in take_due(bench.sessions)} == set(OperationKind) - halted
    assert len(bench.gateway.keys) == sent
    status, said = operate("resume", *words)
    assert (status, "paused now: nothing" in said) == (0, True)
    assert {each.kind for each in take_due(bench.sessions)} == halted


def test_show_tells_of_refunds_and_sums(bench: Bench) -> None:
    """What was taken, given back and is reserved, and each refund with its amount, reason and reference."""
    charged = bench.order(10_000)
    bench.attempt(charged)
    done, waits = refund(bench, charged, 3_000), refund(bench, charged, 1_000)
    bench.attempt(done.id)
    operate("pause", "--kind", "refund")
    payment = bench.payment(charged)
    ref = str(bench.operation(done.id).gateway_ref)
    for name in (payment.transaction_id, ref, str(waits.id)):
        assert str(payment.id) in operate("show", str(name))[1]
    _, shown = operate("show", str(payment.id))
    sums = "100.00 USD, 100.00 USD taken, 30.00 USD refunded, 10.00 USD reserved for refunds"
    for words in (sums, ref, str(waits.id), "refund is paused", "refund-succeeded", "partially_refunded"):
        assert words in shown


def test_show_tells_of_holds_and_deadlines(bench: Bench) -> None:
    """Until when a hold lasts, that a cancel was asked for, and the cart that it belongs to."""
    cart = new_uuid()
    held = hold(bench, order_id=None, cart_id=cart)
    cancel(bench, held)
    _, shown = operate("show", cart)
    for words in (cart, "manual", "hold lapses", "cancel requested", "authorize", "money held"):
        assert words in shown
    assert bench.payment(held).status is Status.AUTHORIZED
