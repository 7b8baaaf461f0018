"""One part of the embedded stack: how it is started again when it dies, and when it is started no more."""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from deploy.local import child
from deploy.local.child import Child, Context, Ended
from deploy.local.output import Output, logged
from deploy.local.parts import Part
from deploy.local.state import SUPERVISOR, StateFolder
from tests.waiting import LONGEST_S, wait_until

Keep = Callable[[list[str]], Child]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """What the parts of a run share, in a state folder of the test's own."""
    state = StateFolder(tmp_path)
    state.create()
    return Context(state, Output(state.logs, quiet=True))


@pytest.fixture
def keep(context: Context) -> Iterator[Keep]:
    """Keep a program running as a part named `short`, until the test is over."""
    kept = []

    def start(argv: list[str]) -> Child:
        kept.append(Child(Part(name="short", argv=lambda: argv, environment={}), context))
        kept[-1].start()
        return kept[-1]

    yield start
    for each in kept:
        each.ask_to_stop()
        wait_until(each.has_ended, LONGEST_S, "the part to end")


def delays(context: Context, count: int) -> list[str]:
    """The first pauses before a new start, in seconds, as the log names them."""

    def named() -> list[str] | None:
        said = logged(context.state.logs, SUPERVISOR)
        found = re.findall(r"short ended \(exit status 3\); starting it again in (\S+) s", said)
        return found if len(found) >= count else None

    return list(islice(wait_until(named, LONGEST_S, f"{count} ends"), count))


def test_a_part_that_ends_at_once_is_given_more_and_more_time(context: Context, keep: Keep) -> None:
    """Each end is named with the pause before the next start, which doubles; those who wait are told."""
    keep(["sh", "-c", "exit 3"])
    assert delays(context, 3) == ["0.2", "0.4", "0.8"]
    assert [context.events.get(timeout=LONGEST_S) for _ in range(3)] == [
        Ended("short", times, 3) for times in (1, 2, 3)
    ]


def test_a_part_that_was_steady_is_started_again_soon(
    context: Context, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was up for long enough has a first pause again."""
    monkeypatch.setattr(child, "STEADY_S", 0.0)
    keep(["sh", "-c", "exit 3"])
    assert delays(context, 3) == ["0.2", "0.2", "0.2"]


def test_nothing_starts_once_starts_are_closed(context: Context, keep: Keep, tmp_path: Path) -> None:
    """A part that comes too late makes no process: who stops the stack has looked for the last time."""
    context.starts.close()
    trace = tmp_path / "trace"
    keep(["sh", "-c", f"touch {trace}"])
    assert context.events.get(timeout=LONGEST_S).name == "short"  # it was tried
    assert not trace.exists()
    assert context.state.recorded() == {}
