"""Processes that start before what they need: they say so, wait, and need no second start."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from deploy.local.parts import program
from deploy.local.ports import any_free
from tests.conftest import Servers
from tests.factories import as_json, payment_body
from tests.outages import held_down
from tests.waiting import LONGEST_S, wait_until

SOON_S = 60.0
PATIENCE_S = "600"
COMMANDS = {
    "api": ["payment-api", "serve"],
    **{name: ["payment-worker", name] for name in ("relay", "consumer", "tasks", "scheduler")},
}
HASTE = {"AUTH": "optional", "LEASE_S": "3", "RECOVERY_AFTER_S": "1", "HEALTH_PORT": "0", "WEB_WORKERS": "1"}
DATABASE = {
    "api": "the database is away or busy",
    "relay": "the database is away",
}
VALKEY = {"tasks": "Cannot connect to", "scheduler": "Redis is away; periodic tasks wait"}
BROKER = {"consumer": "kafka"}
# What is away, what each process says of it, and whether an order is accepted meanwhile.
AWAY: dict[str, tuple[tuple[str, ...], dict[str, str], bool]] = {
    "everything": (("postgres", "valkey", "broker"), DATABASE | VALKEY | BROKER, False),
    "all but the database": (("valkey", "broker"), VALKEY | BROKER | {"relay": "producer rebuilt"}, True),
}


@dataclass
class Started:
    """A process and what it has written."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> list[dict[str, Any]]:
        """Its lines, each of which must be JSON."""
        whole = self.log.read_text(encoding="utf-8").rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def warned(self, words: str) -> dict[str, Any] | None:
        """A line that warns with these words."""
        warnings = (line for line in self.said() if line["level"] in {"warning", "error"})
        return next((line for line in warnings if words in line["event"]), None)


@dataclass
class Service:
    """All of our processes."""

    url: str
    parts: dict[str, Started]

    def order(self) -> requests.Response | None:
        """Send an order; no answer while nobody listens yet."""
        headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
        try:
            return requests.post(
                f"{self.url}/payments", data=as_json(payment_body()), headers=headers, timeout=LONGEST_S
            )
        except requests.ConnectionError:
            return None

    def answers(self, status: int) -> str | None:
        """Send orders until one is answered so; return its payment's id, if it has become one."""
        answers: list[requests.Response] = []

        def is_so() -> bool:
            if (answer := self.order()) is not None:
                answers.append(answer)
            return bool(answers) and answers[-1].status_code == status

        wait_until(is_so, SOON_S, f"an answer of {status}")
        payment = answers[-1].json()["payment"]
        return str(payment["id"]) if payment else None

    def has_succeeded(self, payment_id: str) -> bool:
        """Tell whether the payment was charged."""
        answer = requests.get(f"{self.url}/payments/{payment_id}", timeout=LONGEST_S)
        return bool(answer.json()["payment"]["status"] == "succeeded")


@contextmanager
def started(log: Path, command: list[str], **variables: str) -> Iterator[Started]:
    """One of our commands with the test's settings; it is killed at the end, should it still live."""
    argv = [program(command[0]), *command[1:]]
    environment = {**os.environ, **variables}
    with (
        log.open("wb") as output,
        subprocess.Popen(argv, env=environment, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield Started(process, log)
        finally:
            process.kill()


@contextmanager
def all_started(folder: Path) -> Iterator[Service]:
    """All of our processes."""
    with ExitStack() as ends, closing(any_free()) as port:
        port.hand_over()
        variables = {**HASTE, "HOST": "127.0.0.1", "PORT": str(port.number)}
        parts = {
            name: ends.enter_context(started(folder / f"{name}.log", command, **variables))
            for name, command in COMMANDS.items()
        }
        yield Service(f"http://127.0.0.1:{port.number}", parts)


def run(*command: str) -> None:
    """Run one of our commands, which must succeed."""
    subprocess.run([program(command[0]), *command[1:]], check=True, timeout=LONGEST_S, capture_output=True)


@pytest.mark.parametrize("away", AWAY)
@pytest.mark.usefixtures("environment")
def test_what_is_away_at_the_start_is_waited_for(servers: Servers, tmp_path: Path, away: str) -> None:
    """Each process warns in a line and lives on; once all is there a payment succeeds. None shows a trace."""
    names, warnings, accepts = AWAY[away]
    run("payment-worker", "topics")
    with ExitStack() as ends:
        with held_down(servers.stack, *names):
            service = ends.enter_context(all_started(tmp_path))
            early = service.answers(202 if accepts else 503)
            for name, words in warnings.items():
                wait_until(partial(service.parts[name].warned, words), SOON_S, f"{words!r} of {name}")
            said = [line for part in service.parts.values() for line in part.said()]
            assert [line for line in said if "exception" in line] == []
        run("payment-worker", "topics")  # the embedded broker has forgotten them
        paid = [each for each in (early, service.answers(202)) if each]
        wait_until(lambda: all(map(service.has_succeeded, paid)), SOON_S, "the payments to succeed")
        assert {name: part.process.poll() for name, part in service.parts.items()} == dict.fromkeys(COMMANDS)
        for part in service.parts.values():
            part.process.send_signal(signal.SIGTERM)
        for name, part in service.parts.items():
            assert part.process.wait(LONGEST_S) == 0
            assert {line["process"] for line in part.said()} == {name}


@pytest.mark.usefixtures("environment")
def test_a_migration_waits_for_its_database(servers: Servers, tmp_path: Path) -> None:
    """It warns, tries again, and has done its work once the database is there."""
    command = ["payment-api", "migrate", "--wait", PATIENCE_S]
    with ExitStack() as ends:
        with held_down(servers.stack, "postgres"):
            migrate = ends.enter_context(started(tmp_path / "migrate.log", command))
            words = "the database is away or busy; trying again"
            warning = wait_until(lambda: migrate.warned(words), SOON_S, "a warning")
            assert "refused" in warning["reason"]
        assert migrate.process.wait(LONGEST_S) == 0
    assert migrate.said()[-1]["event"] == "the schema is up to date"
