"""The whole embedded stack: our own processes on top of the servers, kept up and ended with them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from deploy.local.client import RunningStack, running_stack
from deploy.local.processes import wait_gone
from shared.events import topics as wanted_topics
from tests.stacks import (
    NOTHING_LEFT_S,
    ROOT,
    SERVICES,
    assert_nothing_left,
    call,
    environment,
    paid,
    pay,
    read,
    started,
    supervise,
    until,
    wait_ready,
    whole_stack,
)
from tests.waiting import LONGEST_S, wait_until

LONG_CALL_MS = 60_000
# What somebody may have exported for a service of their own.
STRANGERS = {
    "KAFKA_TOPIC_PREFIX": "theirs.",
    "STRIPE_WEBHOOK_SECRET_FILE": "/nowhere",
    "AUTH": "required",
    "WEBHOOKS": "off",
    "LOG_LEVEL": "chatty",
}
ON_FIRST_USE = 4  # partitions of a topic that the embedded broker makes by itself


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One whole stack for the tests of this file that leave it up."""
    with pytest.MonkeyPatch.context() as exported:
        for name, value in STRANGERS.items():
            exported.setenv(name, value)
        with running_stack(tmp_path_factory.mktemp("whole")) as running:
            exported.undo()
            yield running


def test_a_first_payment_succeeds(stack: RunningStack) -> None:
    """What the ready block suggests works at once, through every part of the stack."""
    status, answer = pay(str(stack.endpoints.api_url), Prefer="wait=30")
    assert (status, answer["payment"]["status"]) == (200, "succeeded")


def test_the_example_client_tells_how_its_orders_end(stack: RunningStack) -> None:
    """It sends orders, and hears of each by itself; the last of four ends in .13, which is declined."""
    program = [sys.executable, "-m", "deploy.local.ordering", "--orders", "4"]
    env = environment(stack.state_dir)
    done = subprocess.run(program, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    heard = re.findall(r"order (\S+) (\w+), heard on (\S+)", done.stdout)
    sent = re.findall(r"order (\S+) \w+, (\S+) asked for", done.stdout)
    assert [amount for _, amount in sent] == ["20.50", "21.10", "22.75", "23.13"]
    paid, declined = ("succeeded", "payment-succeeded"), ("failed", "payment-failed")
    ends = {order_id: (status, topic) for order_id, status, topic in heard}
    assert ends == dict(zip((order for order, _ in sent), (paid, paid, paid, declined), strict=True))


def test_the_example_client_says_that_no_stack_is_up(tmp_path: Path) -> None:
    """Not by a stack trace."""
    program = [sys.executable, "-m", "deploy.local.ordering"]
    env = environment(tmp_path)
    done = subprocess.run(program, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"no stack is up in {tmp_path}" in done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_ready_block_can_be_copied(stack: RunningStack) -> None:
    """The command that the stack shows for a first payment makes one, as it stands."""
    shown = wait_until(
        lambda: re.search(r"^ *curl .*\\\n.*$", stack.log("supervisor"), re.MULTILINE), LONGEST_S, "curl"
    )
    said = subprocess.run(["sh", "-c", shown[0]], capture_output=True, text=True, check=True)
    payment = paid(str(stack.endpoints.api_url), json.loads(said.stdout)["payment"])
    assert payment["amount"] == 150


def test_every_process_is_recorded(stack: RunningStack) -> None:
    """pids.json names all nine parts and the supervisor, and no job that has ended."""
    servers = {"supervisor", "postgres", "valkey", "broker", "simulator"}
    assert set(read(stack.state_dir, "pids.json")) == {*SERVICES, *servers}


@pytest.mark.parametrize("name", SERVICES)
def test_a_killed_service_comes_back(stack: RunningStack, name: str) -> None:
    """Each of our processes killed with -9 is started again, and no worker of the old one is left."""
    family = psutil.Process(stack.pid_of(name)).children(recursive=True)
    stack.wait_restarted(name, stack.kill(name))
    assert wait_gone(family, NOTHING_LEFT_S) == []
    status, answer = pay(str(stack.endpoints.api_url))
    assert status in {200, 202}
    payment = f"{stack.endpoints.api_url}/payments/{answer['payment']['id']}"
    until(lambda: call("GET", payment)[1]["payment"]["status"] == "succeeded", 60, "never charged")


def test_the_broker_has_its_topics_again_after_a_restart(stack: RunningStack) -> None:
    """A broker that forgot everything is ready only when each topic is there again, with its partitions.

    One that the relay or a consumer uses before it is created has as many as the broker gives on first use.
    """
    topics = {name: count for name, count in wanted_topics().items() if name.startswith("payment")}

    def partitions() -> dict[str, int]:
        admin = AdminClient({"bootstrap.servers": stack.endpoints.kafka_bootstrap_servers})
        listed = admin.list_topics(timeout=60).topics
        return {name: len(topic.partitions) for name, topic in listed.items() if name in topics}

    stack.wait_restarted("broker", stack.kill("broker"))
    there = partitions()
    assert set(there) == set(topics)
    assert all(count in {topics[name], ON_FIRST_USE} for name, count in there.items())


def test_a_second_signal_hurries(tmp_path: Path) -> None:
    """A charge that takes a minute holds the first Ctrl-C up; the second one does not wait for it."""
    with started(supervise(), tmp_path, PORT="0") as process:
        processes = whole_stack(wait_ready(tmp_path))
        charge_slowly(read(tmp_path, "endpoints.json"))
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        said = list(takewhile(lambda line: "stopping: SIGINT" not in line, process.stdout))
        assert set(SERVICES) <= {line.partition("|")[0].strip() for line in said}  # whose line it is
        time.sleep(0.5)  # a person's pause: two at the same moment are one wish
        process.send_signal(signal.SIGINT)
        assert any("killing it" in line for line in process.stdout)
        assert_nothing_left(processes, tmp_path)


def charge_slowly(endpoints: dict[str, Any]) -> None:
    """Have a charge under way that will not end within the test."""
    latency = {"p50_ms": LONG_CALL_MS, "p99_ms": LONG_CALL_MS}
    call("PUT", f"{endpoints['stripe_api_url']}/_control/latency", latency)
    _, answer = pay(endpoints["api_url"], Prefer="respond-async")
    payment = f"{endpoints['api_url']}/payments/{answer['payment']['id']}"
    until(lambda: call("GET", payment)[1]["payment"]["status"] == "processing", 60, "never charged")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_a_charge_under_way_holds_nothing_up(tmp_path: Path, number: signal.Signals) -> None:
    """Nobody waits for a minute after a hang-up or a kill: all is gone, the payment is still known."""
    with started(supervise("--quiet"), tmp_path, PORT="0"):
        supervisor = wait_ready(tmp_path)
        charge_slowly(read(tmp_path, "endpoints.json"))
        processes = whole_stack(supervisor)
        supervisor.send_signal(number)
        assert_nothing_left(processes, tmp_path)
    with (
        running_stack(tmp_path, only_servers=True) as again,
        psycopg.connect(again.endpoints.database_url) as connection,
    ):
        rows = connection.execute("SELECT status FROM payment").fetchall()
    assert rows == [("processing",)]


def test_a_setting_that_a_service_refuses_ends_the_start(tmp_path: Path) -> None:
    """The stack ends with the service's own words instead of starting it for ever."""
    refused = subprocess.run(
        [sys.executable, "-m", "deploy.local", "--quiet"],
        cwd=Path(__file__).parents[2],
        env=environment(tmp_path, PORT="0", LOG_LEVEL="chatty"),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert refused.returncode == 1
    assert "LOG_LEVEL" in refused.stderr
    assert not (tmp_path / "pids.json").exists()
