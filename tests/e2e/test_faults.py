"""Whatever is killed, every accepted order ends, is charged at most once, and is announced under one id."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal

import psutil
import psycopg
import pytest
import redis

from deploy.local.client import RunningStack, running_stack
from tests.factories import new_uuid
from tests.orders import NO_ANSWER, Orders
from tests.outages import held_down
from tests.topics import Received, reader
from tests.waiting import wait_until

SOON_S = 30.0
# Short, so that the tests need not wait; the relations between them are those of the defaults.
HASTE = {"LEASE_S": "3", "RECOVERY_AFTER_S": "1"}
USUAL_MS = (120, 300)
PATIENT = "wait=30"  # the longest that there is: a machine may be busy
LONG_MS = (3000, 3100)
LONGER_MS = (4000, 4100)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The whole service, for all tests of this file: each leaves it working."""
    with running_stack(tmp_path_factory.mktemp("faults"), env=HASTE) as running:
        yield running


@pytest.fixture
def orders(stack: RunningStack) -> Orders:
    """A new shop, at whose gateway charges take a while."""
    orders = Orders(stack)
    orders.simulator.reset()
    orders.simulator.latency(*USUAL_MS)
    return orders


# --- nothing goes wrong ---


def outcome_of(stack: RunningStack, payment_id: str) -> Received:
    """The event on Kafka that announces the payment's outcome."""
    with reader(stack.endpoints.kafka_bootstrap_servers, ["payment-succeeded", "payment-failed"]) as read:

        def found() -> Received | None:
            return next((each for each in read() if each.named["ce_subject"] == payment_id), None)

        return wait_until(found, SOON_S, "the outcome on Kafka")


def test_an_order_is_charged_and_announced(stack: RunningStack, orders: Orders) -> None:
    """HTTP in, the outcome in the answer, the charge at the gateway, the event on Kafka."""
    response = orders.post(amount=Decimal("150.00"), prefer=PATIENT)
    assert (response.status_code, response.json()["success"]) == (200, True)
    payment = response.json()["payment"]
    orders.placed.append(payment["id"])
    event = outcome_of(stack, payment["id"])
    assert event.topic == "payment-succeeded"
    assert event.value["transactionId"] == payment["transactionId"]
    assert event.value["amount"] == Decimal("150.00")
    orders.settle()
    orders.account()


def test_a_declined_order_is_refused_and_announced(stack: RunningStack, orders: Orders) -> None:
    """The bank's no is in the answer and on Kafka, and no money was taken."""
    response = orders.post(amount=Decimal("150.66"), prefer=PATIENT)
    assert response.status_code == 422
    body = response.json()
    assert body["errorMessage"] == "Payment failed: Insufficient funds on card"
    orders.placed.append(body["payment"]["id"])
    event = outcome_of(stack, body["payment"]["id"])
    assert (event.topic, event.value["errorCode"]) == ("payment-failed", "INSUFFICIENT_FUNDS")
    orders.settle()
    orders.account()


def test_an_order_can_be_traced_through_every_process(stack: RunningStack, orders: Orders) -> None:
    """The caller's correlation id is in the logs of API, consumer and tasks worker, and on the event.

    Beside it stands the payment, and from the consumer on the operation.
    """
    correlation_id = f"trace-{new_uuid()}"
    response = orders.post(correlation_id=correlation_id)
    assert response.headers["X-Correlation-Id"] == correlation_id
    payment_id = response.json()["payment"]["id"]
    with psycopg.connect(stack.endpoints.database_url) as connection:
        query = "SELECT id::text FROM operation WHERE payment_id = %s"
        ((operation_id,),) = connection.execute(query, [payment_id]).fetchall()
    for part, event, operation in (
        ("api", "request", None),
        ("consumer", "task queued", operation_id),
        ("tasks", "operation attempted", operation_id),
    ):
        ids = (correlation_id, payment_id, operation)

        def logged(part: str = part, event: str = event, ids: tuple[str | None, ...] = ids) -> bool:
            lines = [json.loads(line) for line in stack.log(part).splitlines() if correlation_id in line]
            names = ("correlation_id", "payment_id", "operation_id")
            return {tuple(map(line.get, names)) for line in lines if line["event"] == event} == {ids}

        wait_until(logged, SOON_S, f"{correlation_id} in the log of {part}")
    assert outcome_of(stack, payment_id).named["ce_correlationid"] == correlation_id
    assert {entry["correlationId"] for entry in orders.timeline(payment_id)} == {correlation_id}


# --- a part is killed while orders come in ---


def kill(stack: RunningStack, part: str) -> None:
    """Kill a part with -9 and wait until it is back."""
    stack.wait_restarted(part, stack.kill(part))


def kill_api_worker(stack: RunningStack) -> None:
    """Kill one of the API's worker processes; its master starts another."""
    api = psutil.Process(stack.pid_of("api"))
    before = api.children()
    before[0].kill()
    wait_until(
        lambda: len([each for each in api.children() if each != before[0]]) == len(before),
        SOON_S,
        "a new worker of the API",
    )


def flush(stack: RunningStack) -> None:
    """Let Valkey forget everything."""
    with redis.Redis.from_url(stack.endpoints.redis_url) as client:
        client.flushall()


Fault = Callable[[RunningStack], None]
FAULTS: dict[str, tuple[Fault, set[int]]] = {
    # What happens, and what an order may be answered meanwhile instead of being accepted.
    "api worker": (kill_api_worker, {NO_ANSWER}),
    "relay": (lambda stack: kill(stack, "relay"), set()),
    "consumer": (lambda stack: kill(stack, "consumer"), set()),
    "tasks": (lambda stack: kill(stack, "tasks"), set()),
    "scheduler": (lambda stack: kill(stack, "scheduler"), set()),
    "valkey, flushed": (flush, set()),
    "valkey": (lambda stack: kill(stack, "valkey"), set()),
    "simulator": (lambda stack: kill(stack, "simulator"), set()),
    "postgres": (lambda stack: kill(stack, "postgres"), {503}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_crash_in_mid_run_loses_and_doubles_nothing(stack: RunningStack, orders: Orders, name: str) -> None:
    """Orders are accepted all the while, end, are charged once, and are announced under one id."""
    fault, tolerated = FAULTS[name]
    with orders.stream():
        fault(stack)
    orders.settle()
    orders.account()
    assert set(orders.refusals) <= tolerated


def test_a_broker_that_crashes_delays_events_and_nothing_else(stack: RunningStack, orders: Orders) -> None:
    """It comes back without its memory; what was not delivered is delivered then, under the same id."""
    with orders.stream():
        kill(stack, "broker")
        seen = len(orders.placed)
    orders.settle()
    orders.account(on_kafka=orders.placed[seen:])
    assert not orders.refusals


def test_workers_killed_in_mid_charge_charge_once(stack: RunningStack, orders: Orders) -> None:
    """Some of the charges were made before the worker died and some not: all are made exactly once."""
    orders.simulator.latency(*LONGER_MS)
    with ThreadPoolExecutor(6) as clients:
        placed = [clients.submit(orders.place) for _ in range(6)]
    ids = [each.result() for each in placed]
    wait_until(lambda: "pending" not in map(orders.status, ids), SOON_S, "every charge to have been sent")
    pid = stack.kill("tasks")
    orders.simulator.latency(None, None)
    stack.wait_restarted("tasks", pid)
    orders.settle()
    assert {orders.status(each) for each in ids} == {"succeeded"}
    # One that had ended before the worker did needed no other attempt.
    assert max(orders.timeline(each)[-1]["detail"]["attempt"] for each in ids) > 1
    orders.account()


# --- a part is away when orders come in ---


@pytest.mark.parametrize("part", ["valkey", "broker", "simulator"])
def test_orders_are_accepted_without(stack: RunningStack, orders: Orders, part: str) -> None:
    """To accept an order only the database is needed; the rest catches up."""
    with held_down(stack, part):
        for _ in range(3):
            orders.place()
        assert not orders.refusals
        waiting = orders.post(prefer="wait=1")
        assert waiting.status_code in {200, 202}
        orders.placed.append(waiting.json()["payment"]["id"])
    orders.settle()
    orders.account()


def test_without_the_database_orders_are_put_off(stack: RunningStack, orders: Orders) -> None:
    """503, and nothing is stored: the same order is accepted when it is back."""
    order_id = new_uuid()
    with held_down(stack, "postgres"):
        refused = orders.post(orderId=order_id)
        assert (refused.status_code, refused.json()["payment"]) == (503, None)
        assert refused.headers["Retry-After"]
    orders.place(orderId=order_id)
    with psycopg.connect(stack.endpoints.database_url) as connection:
        stored = connection.execute("SELECT id FROM payment WHERE order_id = %s", [order_id]).fetchall()
    assert [str(payment_id) for (payment_id,) in stored] == orders.placed
    orders.settle()
    orders.account()


# --- asked to stop ---


@contextmanager
def charge_under_way(orders: Orders, answers: set[int]) -> Iterator[str]:
    """Within the block a client waits for a charge that takes a while; it is answered with one of these."""
    orders.simulator.latency(*LONG_MS)
    order_id = new_uuid()

    def payment_of_order() -> str | None:
        found = orders.get(f"/payments?orderId={order_id}")["payments"]
        return found[0]["id"] if found and found[0]["status"] == "processing" else None

    with ThreadPoolExecutor(1) as client:
        answer = client.submit(orders.post, orderId=order_id, prefer=PATIENT)
        payment_id = wait_until(payment_of_order, SOON_S, "the charge to be under way")
        orders.placed.append(payment_id)
        yield payment_id
        assert answer.result().status_code in answers
    assert answer.result().json()["payment"]["id"] == payment_id


def ask_to_stop(stack: RunningStack, part: str) -> int:
    """Send SIGTERM and wait for the end of the process; return the pid that it had."""
    process = psutil.Process(stack.pid_of(part))
    process.terminate()
    wait_until(lambda: not process.is_running(), SOON_S, f"the end of {part}")
    return process.pid


def test_a_worker_that_is_asked_to_stop_finishes_first(stack: RunningStack, orders: Orders) -> None:
    """SIGTERM in mid-charge: the running attempt records its outcome, then the process ends."""
    with charge_under_way(orders, {200}) as payment_id:
        pid = ask_to_stop(stack, "tasks")
        assert orders.status(payment_id) == "succeeded"
    events = [entry["event"] for entry in orders.timeline(payment_id)]
    assert events == ["payment requested", "charge sent", "charge succeeded"]
    stack.wait_restarted("tasks", pid)
    orders.settle()
    orders.account()


def test_the_api_answers_those_who_wait_before_it_ends(stack: RunningStack, orders: Orders) -> None:
    """SIGTERM in mid-charge: the waiting client is told what is known, and the charge goes on."""
    with charge_under_way(orders, {200, 202}):
        pid = ask_to_stop(stack, "api")
    stack.wait_restarted("api", pid)
    orders.settle()
    orders.account()


def test_processes_that_are_asked_to_stop_lose_nothing(stack: RunningStack, orders: Orders) -> None:
    """SIGTERM to each of the others while orders come in: they end within seconds and come back."""
    with orders.stream():
        pids = {part: ask_to_stop(stack, part) for part in ("relay", "consumer", "scheduler")}
        for part, pid in pids.items():
            stack.wait_restarted(part, pid)
    orders.settle()
    orders.account()
    assert not orders.refusals


def test_no_process_has_ended_by_itself(stack: RunningStack) -> None:
    """After all of the above: those not killed have lived, and those asked to stop ended well."""
    ends = [line for line in stack.log("supervisor").splitlines() if " ended (" in line]
    assert ends
    assert [line for line in ends if "(signal SIGKILL)" not in line and "(exit status 0)" not in line] == []
