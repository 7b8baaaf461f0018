"""Commands that change something leave a trail of who gave them; every command says whether it does."""

import getpass
import json
import socket
from collections.abc import Iterator

import click

from payment_worker.cli import main
from shared.commands import audit
from shared.settings import Settings
from tests.api import Stored
from tests.operating import operate
from tests.worker import Bench

# What only looks, and what runs until it is stopped.
CHANGE_NOTHING = {
    "show", "review list", "webhooks list", "audit list", "dead-letters list", "dead-letters show",
    "notifications list", "notifications endpoints", "breaks list", "invariants", "asyncapi",
    "evidence", "events parked",
}  # fmt: skip
PROCESSES = {"topics", "relay", "consumer", "tasks", "scheduler"}


def leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its whole name."""
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from leaves(each, f"{path}{name} ")
        else:
            yield f"{path}{name}", each


def test_every_command_that_changes_something_is_noted() -> None:
    """A command that is added is in one of the two lists here, or leaves a trail."""
    unnoted = {name for name, each in leaves(main) if not getattr(each.callback, "changes", False)}
    assert unnoted == CHANGE_NOTHING | PROCESSES


def test_a_command_is_noted(bench: Bench) -> None:
    """Who gave it, from which host, with which options, and that it was done; the newest comes first."""
    assert operate("pause", "--kind", "refund")[0] == 0
    assert operate("resume")[0] == 0
    status, said = operate("audit", "list", "--json")
    assert status == 0
    resumed, halted = json.loads(said)
    for each in (resumed, halted):
        assert (each["actor"], each["cameFrom"]) == (getpass.getuser(), socket.gethostname())
        assert (each["channel"], each["outcome"]) == ("command", "done")
    assert (halted["action"], halted["subject"]) == ("payment-worker pause", {"kind": "refund"})
    assert (resumed["action"], resumed["subject"]) == ("payment-worker resume", {})
    assert resumed["correlationId"] != halted["correlationId"]


def test_a_command_that_fails_is_noted_with_its_reason(bench: Bench) -> None:
    """What was not done is told apart from what was."""
    operation = bench.order()
    assert operate("review", "resolve", str(operation), "--as", "seen")[0] == 1
    assert operate("webhooks", "replay", "evt_none")[0] == 1
    webhooks, review = json.loads(operate("audit", "list", "--json")[1])
    assert review["subject"] == {"operation": str(operation), "way": "seen"}
    assert review["outcome"].startswith("failed: not resolved")
    assert webhooks["subject"] == {"event_ids": ["evt_none"]}
    assert webhooks["outcome"] == "failed: no such webhook: evt_none"


def test_looking_leaves_no_trail(bench: Bench) -> None:
    """Neither lists nor a dry run; what was mistyped was never begun."""
    assert operate("review", "list")[0] == 0
    assert operate("events", "replay", "--since", "2026-11-20", "--dry-run")[0] == 0
    assert operate("pause", "--kind", "everything")[0] == 2
    assert operate("audit", "list") == (0, "nothing was changed\n")


def test_the_trail_is_searched(bench: Bench, settings: Settings) -> None:
    """By actor, by time and up to a number; one that broke off in the middle says so."""
    noted = []
    for actor in ("ada", "grace", "ada"):
        act = audit.Act(
            actor=actor, channel="http", action="POST /payments", subject={"orderId": "order-17"},
            came_from="203.0.113.7", correlation_id="corr-1",
        )  # fmt: skip
        noted.append(audit.note(bench.sessions, act))
    audit.complete(bench.sessions, noted[-1], "202", {"payment_id": "p"})
    Stored(settings.database_url).change("UPDATE audit_entry SET at = '2020-01-01Z' WHERE actor = 'grace'")
    by_ada = audit.entries(bench.sessions, actor="ada")
    assert [each.outcome for each in by_ada] == ["202", None]
    assert by_ada[0].subject == {"orderId": "order-17", "payment_id": "p"}
    status, said = operate("audit", "list", "--actor", "ada", "--limit", "1")
    assert (status, said.count("POST /payments"), "order-17" in said) == (0, 1, True)
    recent = json.loads(operate("audit", "list", "--since", "2026-01-01", "--json")[1])
    assert [(each["actor"], each["outcome"]) for each in recent] == [("ada", "202"), ("ada", "broke off")]
