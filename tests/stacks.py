"""Start embedded stacks as a user would, look at what they consist of, and see that nothing is left."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from deploy.local.client import RunningStack, without_settings
from deploy.local.processes import wait_gone

ROOT = Path(__file__).parents[1]
NOTHING_LEFT_S = 120.0  # after whatever death; five seconds on a machine that is not busy
UP_S = 180.0
SERVERS = ("postgres", "valkey", "broker", "simulator")
SERVICES = ("api", "relay", "consumer", "tasks", "scheduler")
MAKE_RUN = ["make", "-s", "-o", ".venv/.local", "run", "ARGS=--only servers"]  # -o: install nothing


def until(condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    """Wait for a condition; fail with `otherwise` when it does not come about."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def environment(state_dir: Path, **settings: str) -> dict[str, str]:
    """Our environment without settings and make's own words, and with a state folder of the test's."""
    of_make = ("STOP_WITH_PID", "MAKE", "MFLAGS")
    inherited = {name: value for name, value in without_settings().items() if not name.startswith(of_make)}
    return {**inherited, "STATE_DIR": str(state_dir), **settings}


def read(state_dir: Path, name: str) -> dict[str, Any]:
    """One of the state folder's JSON files; empty while it is not there."""
    with contextlib.suppress(OSError, ValueError):
        content: dict[str, Any] = json.loads((state_dir / name).read_text(encoding="utf-8"))
        return content
    return {}


def wait_ready(state_dir: Path) -> psutil.Process:
    """Wait until the stack of a state folder is up; its supervisor."""
    until(lambda: bool(read(state_dir, "endpoints.json")), UP_S, f"no stack is up in {state_dir}")
    return psutil.Process(read(state_dir, "pids.json")["supervisor"]["pid"])


def whole_stack(supervisor: psutil.Process) -> list[psutil.Process]:
    """The supervisor and everything below it: servers, their workers, the watchdog."""
    return [supervisor, *supervisor.children(recursive=True)]


def assert_nothing_left(processes: list[psutil.Process], state_dir: Path) -> None:
    """All of them end in time, and the state folder no longer speaks of a running stack."""
    assert len(processes) > len(SERVERS) + 1  # else there was nothing to end
    began = time.monotonic()
    assert wait_gone(processes, NOTHING_LEFT_S) == []
    print(f"waited {time.monotonic() - began:.1f} s until nothing was left")  # shown by `pytest -rP`
    assert not (state_dir / "endpoints.json").exists()
    assert not (state_dir / "pids.json").exists()


@contextlib.contextmanager
def started(argv: list[str], state_dir: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A program that starts a stack; whatever the test did to it, its stack is ended after the block."""
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=environment(state_dir, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            end_stack(state_dir)
            process.kill()


def end_stack(state_dir: Path) -> None:
    """Ask the stack of a state folder to stop, if a test that failed has left one."""
    supervisor = read(state_dir, "pids.json").get("supervisor")
    if supervisor and psutil.pid_exists(supervisor["pid"]):
        process = psutil.Process(supervisor["pid"])
        process.terminate()
        wait_gone([process], 20)


def supervise(*options: str) -> list[str]:
    """The supervisor's command line."""
    return [sys.executable, "-m", "deploy.local", *options]


def call(method: str, url: str, body: object = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Send JSON to one of our servers; (status, answer)."""
    request = urllib.request.Request(  # noqa: S310 - our own server
        url,
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Content-Type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - as above
        return answer.status, json.load(answer)


def pay(api_url: str, **headers: str) -> tuple[int, dict[str, Any]]:
    """Ask for a first payment, as the ready block suggests."""
    body = {"orderId": str(uuid.uuid4()), "customerId": str(uuid.uuid4()), "amount": 150.00}
    return call("POST", f"{api_url}/payments", body, **headers)


def paid(api_url: str, payment: dict[str, Any]) -> dict[str, Any]:
    """Wait until a payment that was answered has succeeded; how it then stands."""
    url = f"{api_url}/payments/{payment['id']}"
    until(lambda: call("GET", url)[1]["payment"]["status"] == "succeeded", UP_S, "never charged")
    found: dict[str, Any] = call("GET", url)[1]["payment"]
    return found


def ledger(stack: RunningStack) -> list[dict[str, Any]]:
    """The charges that the stack's simulator has made."""
    charges: list[dict[str, Any]] = call("GET", f"{stack.endpoints.stripe_api_url}/_control/ledger")[1][
        "data"
    ]
    return charges


def ledger_size(stack: RunningStack) -> int:
    """How many charges the stack's simulator has made."""
    return len(ledger(stack))


def charge(stack: RunningStack) -> None:
    """Charge once at the stack's simulator."""
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{stack.endpoints.stripe_api_url}/v1/payment_intents",
        data=b"amount=1500&currency=usd&confirm=true&payment_method=pm_card_visa&payment_method_types[]=card",
        headers={"Authorization": "Bearer sk_test_123", "Idempotency-Key": f"key-{time.monotonic_ns()}"},
    )
    urllib.request.urlopen(request, timeout=60).close()  # noqa: S310 - as above
