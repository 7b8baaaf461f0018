"""What `make demo` tells at its end, and its exit status: 0 only when every row has its counterparts."""

import subprocess
import sys
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
import requests
from rich.console import Console

from deploy.local import wipe
from deploy.local.client import RunningStack, StackFailed
from deploy.local.demo.__main__ import INTERRUPTED, play, run
from deploy.local.demo.evidence import Database, Heard
from deploy.local.demo.orders import Case, Kind
from deploy.local.demo.report import Evidence, show
from deploy.local.demo.screen import WIDTH, Screen
from deploy.local.demo.stage import NotInTime, Stage
from deploy.local.demo.stripe_control import StripeControl
from deploy.local.ordering import Answer, Order, Payments
from deploy.local.state import StateFolder
from tests.audit_rows import DECLINED, FAILED_EVENT, FAILED_PAYMENT, Rows, charge, event, payment

NOWHERE = "http://127.0.0.1:9"
# Locks belong to a process: another one has to hold this. It leaves when its standard input ends.
HOLD = """
import sys, pathlib, deploy.local.state
with deploy.local.state.StateFolder(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def ordered(name: str, expected: str = "succeeded") -> Case:
    """An order over 150.00 USD that was answered with payment `name`."""
    order = Order(amount=Decimal("150.00"), order_id=f"order_{name}")
    return Case(order=order, label=name, expected=expected, answers=[Answer(200, name, expected)])


def seen(rows: Rows) -> Evidence:
    """What a demo of two orders that succeed, a and c, and one that is declined, b, has seen."""
    cases = [ordered("a"), ordered("b", "failed"), ordered("c")]
    return Evidence(
        kinds=[Kind(title="All", about="three orders", cases=cases)],
        charges=rows.charges,
        refunds=rows.refunds,
        payments=rows.payments,
        events=rows.events,
        messages=[],
        timelines={},
        durations_s={},
    )


@pytest.fixture
def rows() -> Rows:
    """The rows of these three orders; all sides agree."""
    return Rows(
        [charge("a"), charge("b", **DECLINED), charge("c")],
        [payment("a"), payment("b", **FAILED_PAYMENT), payment("c")],
        [event("a"), event("b", **FAILED_EVENT), event("c")],
    )


@pytest.fixture
def console() -> Console:
    """A console that keeps what it is told."""
    return Console(file=StringIO(), width=WIDTH, highlight=False)


def told(console: Console) -> str:
    """What people have read there, without its line breaks and frames."""
    return " ".join(cast("StringIO", console.file).getvalue().replace("│", "").split())


def test_sides_that_agree_are_accounted_for(console: Console, rows: Rows) -> None:
    """Every row has its counterparts: the demo may end well, and says how many orders it was."""
    assert show(console, seen(rows), 1.0)
    assert "3 orders: 2 charged, 0 with refunds, 0 cancelled, 1 failed, 0 unaccounted, 0 open" in told(
        console
    )


def assert_found(console: Console, rows: Rows, summary: str, *says: str) -> None:
    """Hold the verdict against `summary`, and each finding against what must be said of it."""
    assert not show(console, seen(rows), 1.0)
    text = told(console)
    assert summary in text
    for each in says:
        assert each in text


def test_a_stray_charge_is_shown(console: Console, rows: Rows) -> None:
    """Money that was taken for no payment of ours is no good end."""
    rows.charges.append(charge("x"))
    assert_found(
        console, rows, "1 unaccounted, 0 open", "charge ch_x (succeeded, 15000 usd) at Stripe has no"
    )


@pytest.mark.parametrize("left", [{"status": "processing", "captured_minor": 0}, {"undelivered": 1}])
def test_an_open_payment_is_shown(console: Console, rows: Rows, left: dict[str, Any]) -> None:
    """A payment without an outcome, or with one that Kafka has not got, is no good end."""
    rows.payments[0] = payment("a", **left)
    assert_found(console, rows, "1 open", "open 150.00 USD, a")


def test_an_outcome_that_nobody_heard_is_shown(console: Console, rows: Rows) -> None:
    """A payment that was charged and never announced is no good end."""
    rows.events.pop(0)
    assert_found(console, rows, "unaccounted, 0 open", "unaccounted 150.00 USD, a")


def test_two_errors_that_cancel_out_in_every_total_are_shown(console: Console, rows: Rows) -> None:
    """One order charged twice and another never: as many charges and cents as there should be, both shown."""
    rows.charges[2] = charge("a", charge_id="ch_c")
    assert_found(
        console, rows, "2 unaccounted, 0 open", "unaccounted 150.00 USD, a", "unaccounted 150.00 USD, c"
    )


@pytest.mark.parametrize(("stray", "is_complete", "status"), [(0, True, 0), (0, False, 1), (1, True, 1)])
def test_the_exit_status_is_the_verdict(
    console: Console, rows: Rows, tmp_path: Path, stray: int, *, is_complete: bool, status: int
) -> None:
    """Nought needs both: every scene played to its end, and nothing unaccounted for or open."""
    rows.charges += [charge("x")] * stray
    assert run(console, StateFolder(tmp_path), lambda *_: (seen(rows), is_complete)) == status


@pytest.mark.parametrize(
    ("trouble", "status", "says"),
    [
        (StackFailed("the broker did not come up"), 1, "the broker did not come up"),
        (psycopg.OperationalError("no database"), 1, "no database"),
        (requests.ConnectionError("no API"), 1, "no API"),
        (KeyboardInterrupt(), INTERRUPTED, "Interrupted; everything that was started has been stopped"),
    ],
    ids=repr,
)
def test_a_demo_that_breaks_off_says_why(
    console: Console, tmp_path: Path, trouble: BaseException, status: int, says: str
) -> None:
    """A part that fails is a failure, and Ctrl-C is told from it, as shells do: 128 and the signal."""

    def perform(*_: object) -> tuple[Evidence, bool]:
        raise trouble

    assert run(console, StateFolder(tmp_path), perform) == status
    assert says in told(console)


def test_a_second_demo_in_the_same_folder_does_not_start(
    console: Console, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a live one has there is left alone; the status tells it from a demo that failed."""
    monkeypatch.setattr(wipe, "LOCK_WAIT_S", 0.0)
    mark = tmp_path / "mark"
    mark.touch()
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert run(console, StateFolder(tmp_path), lambda *_: (seen(rows), True)) == 2
    assert "The demo does not start" in told(console)
    assert mark.exists()


def test_the_exit_status_of_an_interruption_is_that_of_shells() -> None:
    """128 and the number of SIGINT."""
    assert INTERRUPTED == 130


def test_a_scene_that_fails_makes_the_play_incomplete(console: Console) -> None:
    """Whatever of the stack does not answer, or not in time, is said, and what was played so far is kept."""
    unused: Any = None
    stage = Stage(
        stack=cast("RunningStack", unused),
        payments=Payments(NOWHERE),
        stripe=StripeControl(NOWHERE),
        database=cast("Database", unused),
        heard=Heard(),
        screen=Screen(console, 0.0),
        webhook_secret="",
    )
    assert play(stage) == ([], False)
    assert "Connection refused" in told(console)
    with pytest.raises(NotInTime, match="not after 0 s: the sky falls"):
        stage.until(lambda: False, "the sky falls", 0.0)
