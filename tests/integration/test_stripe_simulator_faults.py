"""The Stripe simulator keeps idempotency keys, fails on demand, and survives being killed."""

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests
import stripe

from tests.stripe_process import CALL_S, INTENTS, Running, error_of
from tests.waiting import LONGEST_S


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One simulator for the tests of this module."""
    started = Running(tmp_path_factory.mktemp("stripe") / "state.sqlite")
    yield started
    assert started.stop() == 0


@pytest.fixture
def simulated(running: Running) -> Running:
    """The module's simulator, without faults and latency."""
    running.control.reset()
    return running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start simulators that a test may stop or kill."""
    started: list[Running] = []

    def start(**options: Any) -> Running:
        started.append(Running(tmp_path / "state.sqlite", **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


@pytest.mark.parametrize("amount", [2500, 1013])
def test_a_key_replays_its_first_answer(simulated: Running, amount: int) -> None:
    """The same call with the same key gives the same bytes, declines included, and one charge."""
    order, key = str(uuid.uuid4()), str(uuid.uuid4())
    body = {
        "amount": amount, "currency": "usd", "confirm": "true", "payment_method": "pm_card_visa",
        "payment_method_types[]": "card", "metadata[order_id]": order,
    }  # fmt: skip
    first, second = (simulated.post(INTENTS, body, Idempotency_Key=key) for _ in range(2))
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Original-Request"] == first.headers["Request-Id"] != second.headers["Request-Id"]
    assert len(simulated.control.charges(order_id=order)) == 1


def test_a_key_belongs_to_one_request(simulated: Running) -> None:
    """Other parameters or another endpoint are refused; a call that validation refuses leaves it free."""
    key = str(uuid.uuid4())
    with pytest.raises(stripe.InvalidRequestError):
        simulated.pay("o", key=key, amount=1)
    intent = simulated.pay("o", key=key)
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        simulated.pay("o", key=key, amount=2600)
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        simulated.intents.cancel(intent.id, {}, {"idempotency_key": key})


def test_a_key_lasts_a_day(simulated: Running) -> None:
    """After 24 hours the key is new again."""
    order, key = str(uuid.uuid4()), str(uuid.uuid4())
    first = simulated.pay(order, key=key)
    for age_s, same in ((23 * 3600, True), (3601, False)):
        with sqlite3.connect(simulated.state) as state:
            state.execute(
                "UPDATE idempotency_keys SET created_at = created_at - ? WHERE key = ?", (age_s, key)
            )
        assert (simulated.pay(order, key=key).id == first.id) is same


def test_a_key_is_not_shared_by_requests_at_once(start: Callable[..., Running]) -> None:
    """Of ten calls with one key that take an hour, one is under way and the others are told to wait: 409."""
    simulated, order, key = start(), str(uuid.uuid4()), str(uuid.uuid4())
    simulated.control.latency(3_600_000, 3_600_000)
    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(simulated.pay, order, key=key) for _ in range(10)]
        try:
            refused = [call.exception() for call in islice(as_completed(calls, LONGEST_S), 9)]
        finally:
            assert simulated.stop() == 0
    codes = [error_of(error)["code"] for error in refused if isinstance(error, stripe.APIError)]
    assert codes == ["idempotency_key_in_use"] * 9
    under_way = [error for error in (call.exception() for call in calls) if error not in refused]
    assert [type(error) for error in under_way] == [stripe.APIConnectionError]


@pytest.mark.parametrize(
    ("kind", "charged_at_once", "error", "after"),
    [
        ("lost_response", 1, stripe.APIConnectionError, "replayed"),
        ("connection_reset", 0, stripe.APIConnectionError, "executed"),
        ("rate_limit", 0, stripe.RateLimitError, "executed"),
        ("lock_timeout", 0, stripe.RateLimitError, "executed"),
        ("error_before", 0, stripe.APIError, "poisoned"),
        ("error_after", 1, stripe.APIError, "poisoned"),
    ],
)
def test_faults_strike_once_where_they_should(
    simulated: Running, kind: str, charged_at_once: int, error: type[stripe.StripeError], after: str
) -> None:
    """Each fault leaves the ledger as it says, spares other orders, and the repeat gets the key's answer."""
    order, key = str(uuid.uuid4()), str(uuid.uuid4())
    simulated.control.fault(kind, order_id=order)
    assert simulated.pay().status == "succeeded"
    if kind in {"lost_response", "error_before", "error_after"}:
        with pytest.raises(stripe.InvalidRequestError):
            simulated.pay(order, foo="refused before it is executed, so the fault is still to come")
    with pytest.raises(error) as met:
        simulated.pay(order, key=key)
    assert kind not in {"rate_limit", "lock_timeout"} or error_of(met.value)["code"] == kind
    assert len(simulated.control.charges(order_id=order)) == charged_at_once
    if after == "poisoned":
        with pytest.raises(stripe.APIError) as again:
            simulated.pay(order, key=key)
        headers = again.value.headers or {}
        assert (again.value.http_status, headers["Idempotent-Replayed"]) == (500, "true")
    else:
        headers = simulated.pay(order, key=key).last_response.headers
        assert ("Idempotent-Replayed" in headers) is (after == "replayed")
    assert len(simulated.control.charges(order_id=order)) == (0 if kind == "error_before" else 1)
    assert simulated.control.faults() == {"faults": []}


def test_a_reset_is_a_reset(simulated: Running) -> None:
    """A client sees connection_reset as RST and lost_response as an end of stream, without a byte."""
    simulated.control.fault("connection_reset")
    simulated.control.fault("lost_response")
    where = urlsplit(simulated.url)
    body = b"amount=100&currency=usd"
    head = (
        f"POST {INTENTS} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer sk_test_x\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    for reset in (True, False):
        with socket.create_connection((where.hostname, where.port), timeout=CALL_S) as connection:
            connection.sendall(head.encode() + body)
            if reset:
                with pytest.raises(ConnectionResetError):
                    connection.recv(1)
            else:
                assert connection.recv(1) == b""


def test_wrong_steering_is_refused(simulated: Running) -> None:
    """Control requests that mean nothing are a 400 and change nothing."""
    wrong: list[tuple[str, str, Any]] = [
        ("POST", "faults", {"kind": "meteor"}),
        ("POST", "faults", {"kind": "rate_limit", "times": 0}),
        ("POST", "faults", {"kind": "rate_limit", "match": {"order_id": 1}}),
        ("PUT", "latency", {"p50_ms": 100, "p99_ms": 50}),
        ("PUT", "latency", {"p50_ms": 100}),
        ("POST", "authenticate", {"payment_intent": None}),
    ]
    for method, endpoint, body in wrong:
        answer = requests.request(method, f"{simulated.url}/_control/{endpoint}", json=body, timeout=CALL_S)
        assert answer.status_code == 400, (endpoint, body)
        assert answer.json()["error"]["message"]
    assert simulated.control.faults() == {"faults": []}
    assert requests.get(f"{simulated.url}/_control/latency", timeout=CALL_S).json() is None


def test_a_killed_simulator_remembers(start: Callable[..., Running]) -> None:
    """After kill -9 under load each order, repeated with its key, has one charge; faults are kept too."""
    simulated = start()
    orders = [str(uuid.uuid4()) for _ in range(200)]
    simulated.control.latency(20, 60)
    simulated.control.fault("rate_limit", order_id="later")
    charged = simulated.control.charges

    def pay(target: Running, order: str) -> str:
        try:
            return str(target.pay(order, key=order).status)
        except stripe.StripeError as error:
            return type(error).__name__

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(pay, simulated, order) for order in orders]
        while len(charged()) < 50:
            assert not all(call.done() for call in calls)
        simulated.stop(signal.SIGKILL)
        answers = [call.result() for call in calls]
    assert set(answers) == {"succeeded", "APIConnectionError"}
    again = start(port=urlsplit(simulated.url).port)
    left = {"kind": "rate_limit", "times": 1, "match": {"order_id": "later"}}
    assert again.control.faults() == {"faults": [left]}
    kept = {charge["metadata"]["order_id"] for charge in again.control.charges()}
    assert {order for order, answer in zip(orders, answers, strict=True) if answer == "succeeded"} <= kept
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda order: pay(again, order), orders)) == {"succeeded"}
    assert sorted(charge["metadata"]["order_id"] for charge in again.control.charges()) == sorted(orders)


def test_a_state_has_one_simulator(start: Callable[..., Running]) -> None:
    """A second simulator on the same file refuses to start and says why."""
    simulated = start()
    command = [
        sys.executable,
        "-m",
        "deploy.stripe_simulator",
        "--port",
        "0",
        "--state",
        str(simulated.state),
    ]
    second = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S, check=False)
    assert second.returncode == 1
    assert "in use by another simulator" in json.loads(second.stdout)["reason"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_within_a_second(start: Callable[..., Running], number: int) -> None:
    """A signal ends the process cleanly, even with a call in flight that would take an hour."""
    simulated = start()
    simulated.control.latency(3_600_000, 3_600_000)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(simulated.pay)
        while not connections_to(simulated):
            assert not call.done()
        assert simulated.stop(number) == 0
        assert isinstance(call.exception(), stripe.APIConnectionError)


def connections_to(simulated: Running) -> list[Any]:
    """Return the connections that clients hold to the simulator beside its control connections."""
    found = psutil.Process(simulated.process.pid).net_connections("tcp")
    return [connection for connection in found if connection.status == psutil.CONN_ESTABLISHED]
