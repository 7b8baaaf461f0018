"""What an operator has at hand, used on the running stack: pause, resume, show, health and metrics."""

import json
import math
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from deploy.local.client import RunningStack, running_stack
from tests.factories import as_json, payment_body
from tests.waiting import LONGEST_S, wait_until

SOON_S = 30.0
PROCESSES = ("api", "relay", "consumer", "tasks", "scheduler")
COMMAND = Path(sys.executable).parent / "payment-worker"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One stack for all handles."""
    with running_stack(tmp_path_factory.mktemp("handles")) as running:
        yield running


def operate(stack: RunningStack, *words: str) -> str:
    """Run `payment-worker` as an operator would, and return what it says."""
    env = {**os.environ, "DATABASE_URL": stack.endpoints.database_url}
    done = subprocess.run(
        [COMMAND, *words], env=env, capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pay(stack: RunningStack, prefer: str = "wait=30") -> dict[str, Any]:
    """Send an order and return the payment as the answer shows it."""
    answer = requests.post(
        f"{stack.endpoints.api_url}/payments",
        data=as_json(payment_body()),
        headers={"Prefer": prefer, "Content-Type": "application/json"},
        timeout=LONGEST_S,
    )
    assert answer.status_code in {200, 202}, answer.text
    payment: dict[str, Any] = answer.json()["payment"]
    return payment


def status(stack: RunningStack, payment_id: str) -> str:
    """How the payment stands."""
    answer = requests.get(f"{stack.endpoints.api_url}/payments/{payment_id}", timeout=60)
    return str(answer.json()["payment"]["status"])


def figures(stack: RunningStack, process: str) -> dict[str, float]:
    """The process's metrics, by name and labels."""
    text = requests.get(f"{stack.endpoints.health_urls[process]}/metrics", timeout=60).text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_paused_charges_are_taken_but_reach_nobody(stack: RunningStack) -> None:
    """While charges are paused a payment is accepted and waits; resumed, it is charged. All places say so."""
    pay(stack)
    assert "paused now: authorize, charge" in operate(stack, "pause", "--kind", "charge")
    api, tasks = stack.endpoints.health_urls["api"], stack.endpoints.health_urls["tasks"]
    for url in (api, tasks):
        answer = requests.get(f"{url}/readyz", timeout=60)
        assert (answer.status_code, answer.json()["paused"]) == (200, ["authorize", "charge"])
    assert figures(stack, "scheduler")['payment_paused{kind="charge"}'] == 1

    payment_id = pay(stack, "respond-async")["id"]
    wait_until(
        lambda: "not claimed: an operator has paused its kind" in stack.log("tasks"),
        SOON_S,
        "the worker to leave the charge alone",
    )
    assert status(stack, payment_id) == "pending"
    ledger = requests.get(f"{stack.endpoints.stripe_api_url}/_control/ledger", timeout=60).json()["data"]
    assert payment_id not in [charge["metadata"]["payment_id"] for charge in ledger]

    assert "paused now: nothing" in operate(stack, "resume")
    wait_until(lambda: status(stack, payment_id) == "succeeded", SOON_S, "the charge to go on")


def test_show_tells_a_payments_whole_story(stack: RunningStack) -> None:
    """By its own id, its order's and the gateway's: facts, operations, history and events."""
    payment = pay(stack)
    for name in (payment["id"], payment["orderId"], payment["transactionId"]):
        shown = operate(stack, "show", name)
        for words in (payment["id"], "succeeded", "charge sent", "payment-succeeded", "150.00 USD"):
            assert words in shown


def test_show_of_nothing_says_so(stack: RunningStack) -> None:
    """An id that is nobody's ends with an error and no stack trace."""
    env = {**os.environ, "DATABASE_URL": stack.endpoints.database_url}
    for nobody in (str(uuid.uuid4()), "nonsense"):
        done = subprocess.run(
            [COMMAND, "show", nobody], env=env, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
        assert done.returncode == 1
        assert done.stderr == f"Error: no payment, order, cart or gateway id {nobody}\n"


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_tells_how_it_is(stack: RunningStack, process: str) -> None:
    """Its loop has turned lately, it is ready, and it exports figures of its own."""
    url = stack.endpoints.health_urls[process]
    assert requests.get(f"{url}/healthz", timeout=60).json()["status"] == "ok"
    wait_until(lambda: requests.get(f"{url}/readyz", timeout=60).status_code == 200, SOON_S, "readiness")
    assert any(name.startswith("payment_") for name in figures(stack, process))


def test_every_process_with_a_pool_tells_how_full_it_is(stack: RunningStack) -> None:
    """The relay that leads holds its one connection; the others hold theirs for moments only."""
    name = "payment_database_connections_in_use"
    wait_until(lambda: figures(stack, "relay")[name] == 1, SOON_S, "the relay to hold its connection")
    others = ("api", "tasks", "scheduler")
    wait_until(lambda: {figures(stack, each)[name] for each in others} == {0}, SOON_S, "the others to rest")


def test_the_task_worker_tells_how_it_stands_with_the_gateway(stack: RunningStack) -> None:
    """Against the simulator there is no limit, and as long as it answers the breaker is closed."""
    shown = figures(stack, "tasks")
    assert (shown["payment_gateway_breaker_state"], shown["payment_gateway_budget_left"]) == (0, math.inf)


def test_the_relay_says_whether_it_leads(stack: RunningStack) -> None:
    """One relay alone leads."""
    url = stack.endpoints.health_urls["relay"]
    assert requests.get(f"{url}/readyz", timeout=60).json()["role"] == "leads"
    assert figures(stack, "relay")["payment_relay_leads"] == 1


def test_figures_follow_a_payment_through_the_processes(stack: RunningStack) -> None:
    """A charge shows in the counts of every process that it passes, and leaves nothing due."""

    def counts() -> dict[str, float]:
        everything = {**figures(stack, "api"), **figures(stack, "consumer")}
        everything |= {
            **figures(stack, "tasks"),
            "delivered": figures(stack, "relay")["payment_events_delivered_total"],
        }
        return {
            name: everything.get(name, 0)
            for name in (
                'payment_api_requests_total{method="POST",route="/payments",status="200"}',
                'payment_messages_consumed_total{topic="payment-requested"}',
                'payment_attempts_total{kind="charge"}',
                'payment_gateway_outcomes_total{kind="charge",outcome="succeeded"}',
                'payment_operations_finished_total{kind="charge",state="succeeded"}',
                "delivered",
            )
        }

    wait_until(
        lambda: figures(stack, "scheduler")["payment_outbox_depth"] == 0, SOON_S, "earlier events to go"
    )
    before = counts()
    pay(stack)
    grown = [1, 1, 1, 1, 1, 2]
    wait_until(
        lambda: [after - before[name] for name, after in counts().items()] == grown,
        SOON_S,
        "the figures to grow",
    )
    wait_until(lambda: figures(stack, "scheduler")["payment_outbox_depth"] == 0, SOON_S, "an empty outbox")
    looked_up = figures(stack, "scheduler")
    assert looked_up["payment_needs_review"] == 0
    assert looked_up['payment_queue_length{queue="payments"}'] == 0
    assert not [name for name in looked_up if re.match("payment_oldest_due_seconds", name)]


def test_evidence_is_written_by_a_process_of_its_own(stack: RunningStack) -> None:
    """Each attempt's file is there soon after the outcome; also when that process was killed."""
    (writer,) = psutil.Process(stack.pid_of("tasks")).children()

    def written(payment: dict[str, Any]) -> list[Path]:
        return list((stack.state_dir / "evidence").glob(f"*/{payment['id']}/*.sealed"))

    before = pay(stack)
    wait_until(lambda: written(before), LONGEST_S, "the evidence of a payment")
    writer.kill()
    after = pay(stack)
    wait_until(lambda: written(after), LONGEST_S, "evidence without the process that writes it")
    figure = 'payment_evidence_total{result="written"}'
    wait_until(lambda: figures(stack, "tasks")[figure] >= 2, LONGEST_S, "both to be counted")


def test_every_line_of_every_process_is_json(stack: RunningStack) -> None:
    """From the start to the last word of a graceful stop, each line is an object that names its process."""
    pay(stack)
    pids = {process: stack.pid_of(process) for process in PROCESSES}
    for pid in pids.values():
        psutil.Process(pid).terminate()
    for process, pid in pids.items():
        stack.wait_restarted(process, pid)
    last = "worker: Warm shutdown (MainProcess)"
    wait_until(lambda: last in stack.log("tasks"), SOON_S, "the last word of the tasks worker")
    for process in PROCESSES:
        lines = [json.loads(line) for line in stack.log(process).splitlines()]
        assert {line["process"] for line in lines} == {process}
        assert all(line["event"] and line["level"] and line["timestamp"] for line in lines)
