"""What needs a person is listed with its reason, and resolved by the gateway's truth, never by a guess."""

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import pytest

from payment_worker.processing import MAX_ATTEMPTS
from shared.models import TimelineEntry
from shared.payments import OperationKind, OperationState, Status
from shared.settings import Settings
from tests.factories import new_uuid
from tests.life import capture, hold, refund
from tests.operating import operate
from tests.worker import Bench, make_bench

ABSENCE: Final = timedelta(seconds=601)
PART_MINOR: Final = 4_000
WHOLE_MINOR: Final = 10_000


@pytest.fixture
def bench(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A worker on this test's own database, and operators who have this login name."""
    monkeypatch.setenv("LOGNAME", "olga")
    with make_bench(settings) as bench:
        yield bench


def listed() -> list[dict[str, Any]]:
    """What `review list --json` shows."""
    shown: list[dict[str, Any]] = json.loads(operate("review", "list", "--json")[1])
    return shown


def resolve(operation_id: uuid.UUID, way: str) -> tuple[int, str]:
    """Resolve an operation; return the exit status and what was said."""
    return operate("review", "resolve", str(operation_id), "--as", way)


def give_up(bench: Bench, operation_id: uuid.UUID, fault: str) -> None:
    """Let the operation end with an operator: no attempt has given an outcome."""
    bench.simulator.fault(fault, payment_id=str(bench.payment(operation_id).id))
    bench.attempt(operation_id)
    bench.change(operation_id, attempt=MAX_ATTEMPTS)
    assert bench.attempt(operation_id) is None
    assert bench.operation(operation_id).needs_review


def given_up_charge(bench: Bench, fault: str) -> uuid.UUID:
    """Return a charge that is an operator's."""
    operation_id = bench.order(WHOLE_MINOR)
    give_up(bench, operation_id, fault)
    return operation_id


def last(bench: Bench, operation_id: uuid.UUID) -> TimelineEntry:
    """The newest entry of the payment's history."""
    return bench.timeline(operation_id)[-1]


def test_the_list_says_what_why_and_since_when(bench: Bench) -> None:
    """Both forms show each operation with the reason and the time of the timeline, and the gateway's ids."""
    assert listed() == []
    operation_id = given_up_charge(bench, "connection_reset")
    bench.attempt(bench.order())
    held = hold(bench)
    refused = capture(bench, held, PART_MINOR)
    bench.change(refused.id, needs_review=True)
    first, second = listed()
    assert (first["operationId"], first["kind"], first["state"]) == (str(operation_id), "charge", "in_flight")
    assert (first["paymentId"], first["status"]) == (str(bench.payment(operation_id).id), "processing")
    assert first["reason"] == f"no outcome after {MAX_ATTEMPTS} attempts"
    assert first["since"] == last(bench, operation_id).at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    assert second["paymentGatewayRef"] == bench.payment(held).gateway_ref
    table = operate("review", "list")[1]
    for words in ("2 to review", first["operationId"], first["reason"], second["paymentGatewayRef"]):
        assert words in table


def test_what_nobody_moves_any_more_is_not_just_seen(bench: Bench) -> None:
    """An open operation that is not tried again would be forgotten: it must be adopted or retried."""
    operation_id = given_up_charge(bench, "connection_reset")
    status, said = resolve(operation_id, "seen")
    assert (status, "adopt it or retry it" in said) == (1, True)
    assert bench.operation(operation_id).needs_review


def test_what_is_finished_can_be_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag goes, the history says who saw it, and no key of the gateway is needed; once is enough."""
    monkeypatch.delenv("STRIPE_SECRET_KEY")
    held = hold(bench)
    captured = capture(bench, held, PART_MINOR)
    bench.simulator.act("dashboard/capture", payment_intent=bench.payment(held).gateway_ref)
    bench.attempt(captured.id)
    assert [each["operationId"] for each in listed()] == [str(captured.id)]
    status, said = resolve(captured.id, "seen")
    assert (status, "resolved: seen" in said) == (0, True)
    assert listed() == []
    entry = last(bench, captured.id)
    assert (entry.event, entry.actor, entry.operation_id) == ("review resolved", "olga", captured.id)
    assert resolve(captured.id, "seen")[0] == 1
    assert last(bench, captured.id).sequence == entry.sequence
    bench.assert_history_is_whole(held)


@pytest.mark.parametrize("way", ["adopt", "retry"])
@pytest.mark.parametrize("kind", [OperationKind.CHARGE, OperationKind.CAPTURE, OperationKind.REFUND])
def test_what_the_gateway_has_is_adopted_and_not_tried_again(
    bench: Bench, kind: OperationKind, way: str
) -> None:
    """Its outcome is recorded through the same door, whichever way was asked for, and nothing is sent."""
    if kind is OperationKind.CHARGE:
        operation_id = given_up_charge(bench, "lost_response")
    else:
        primary = hold(bench) if kind is OperationKind.CAPTURE else bench.order(WHOLE_MINOR)
        bench.attempt(primary)
        ask = capture if kind is OperationKind.CAPTURE else refund
        operation_id = ask(bench, primary, PART_MINOR).id
        give_up(bench, operation_id, "lost_response")
    keys = list(bench.gateway.keys)
    status, said = resolve(operation_id, way)
    assert (status, "adopted: " in said, "not tried again" in said) == (0, True, way == "retry")
    payment, operation = bench.payment(operation_id), bench.operation(operation_id)
    assert (operation.state, operation.needs_review) == (OperationState.SUCCEEDED, False)
    assert payment.refund_reserved_minor == 0
    if kind is OperationKind.REFUND:
        assert (payment.status, payment.refunded_minor) == (Status.PARTIALLY_REFUNDED, PART_MINOR)
    else:
        assert payment.status is Status.SUCCEEDED
    assert bench.gateway.keys == keys
    assert bench.recover() == []
    assert (last(bench, operation_id).event, last(bench, operation_id).actor) == ("review resolved", "olga")
    bench.assert_history_is_whole(operation_id)


def test_what_is_absent_is_retried_only_after_a_second_look(bench: Bench) -> None:
    """The operator's look is the first of two; then it is done once, under a new key."""
    operation_id = given_up_charge(bench, "connection_reset")
    status, said = resolve(operation_id, "retry")
    assert (status, "absent at a first look" in said) == (0, True)
    assert bench.recover() == []
    assert (bench.verify(), bench.gateway.finds) == (0, 0)  # too soon
    bench.change(operation_id, absent_since=-ABSENCE)
    bench.verify()
    assert bench.recover() == [operation_id]
    assert bench.gateway.keys[-1] == f"{operation_id}:2"
    (charge,) = bench.simulator.charges(operation_id=str(operation_id))
    assert (bench.payment(operation_id).status, charge["status"]) == (Status.SUCCEEDED, "succeeded")
    assert listed() == []
    bench.assert_history_is_whole(operation_id)


def test_the_operator_may_make_the_second_look(bench: Bench) -> None:
    """Where the first lies far enough back, the new key is due at once."""
    operation_id = given_up_charge(bench, "connection_reset")
    resolve(operation_id, "retry")
    bench.change(operation_id, absent_since=-ABSENCE)
    status, said = resolve(operation_id, "retry")
    assert (status, f"under the key {operation_id}:2" in said) == (0, True)
    assert bench.recover() == [operation_id]
    assert len(bench.successes(operation_id)) == 1
    assert bench.operation(operation_id).needs_review is False


@pytest.mark.parametrize("way", ["adopt", "retry"])
def test_without_an_answer_nothing_is_done(bench: Bench, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A gateway that cannot be asked, or whose key is missing, is no reason to guess."""
    operation_id = given_up_charge(bench, "connection_reset")
    before = bench.events(operation_id)
    bench.simulator.fault("unavailable")
    assert resolve(operation_id, way)[0] == 1
    bench.simulator.reset()
    monkeypatch.delenv("STRIPE_SECRET_KEY")
    status, said = resolve(operation_id, way)
    assert (status, "STRIPE_SECRET_KEY" in said) == (1, True)
    assert bench.events(operation_id) == before
    assert bench.operation(operation_id).needs_review


def test_what_needs_no_retry_is_not_retried(bench: Bench) -> None:
    """Finished, held by somebody, due by itself, or unknown: status 1, a reason, and nothing has changed."""
    finished = bench.order()
    bench.attempt(finished)
    due = bench.order()
    bench.attempt(due, fault="connection_reset")
    held = given_up_charge(bench, "connection_reset")
    bench.change(held, lease_until=timedelta(seconds=60))
    reasons = {
        finished: "what is finished is not tried again",
        due: "it is tried again by itself",
        held: "at this moment",
        uuid.UUID(new_uuid()): "there is no such operation",
    }
    for operation_id, reason in reasons.items():
        status, said = resolve(operation_id, "retry")
        assert (status, reason in said) == (1, True), said
    assert bench.gateway.keys == [str(each) for each in (finished, due, held)]


def test_what_is_absent_cannot_be_adopted(bench: Bench) -> None:
    """There is nothing to record."""
    operation_id = given_up_charge(bench, "connection_reset")
    status, said = resolve(operation_id, "adopt")
    assert (status, "has nothing of it" in said) == (1, True)
    assert bench.operation(operation_id).needs_review


def test_another_amount_than_asked_stays_a_persons(bench: Bench) -> None:
    """Adopting says again what is wrong: money was taken, but not what is owed."""
    operation_id = given_up_charge(bench, "connection_reset")
    request = {**(bench.operation(operation_id).request or {}), "amount": PART_MINOR}
    bench.gateway.inner.send(OperationKind.CHARGE, request, f"other than {operation_id}")
    status, said = resolve(operation_id, "adopt")
    assert (status, "still needs review" in said) == (1, True)
    (case,) = listed()
    assert "another amount than asked" in case["reason"]
    assert bench.payment(operation_id).captured_minor == 0
