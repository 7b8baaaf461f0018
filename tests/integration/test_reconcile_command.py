"""`payment-worker reconcile` as an operator runs it: killed and repeated, exported, judged by its status."""

import csv
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from payment_worker.reconciling import scheduled
from shared.settings import load_settings
from tests.books import HOUR, Books, make_books
from tests.operating import COMMAND, operate
from tests.simulator import Simulator
from tests.stripe_process import Running
from tests.waiting import wait_until

OPEN, WRONG = 3, 2
COUNT: Final = 250  # three pages of PaymentIntents, and of charges
LONG_S: Final = 120


@pytest.fixture
def books(environment: dict[str, str], gateway: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    """Empty books on both sides, and operators who have this login name."""
    monkeypatch.setenv("STRIPE_API_URL", gateway.url)
    monkeypatch.setenv("RECONCILE_MARGIN_S", "0")
    monkeypatch.setenv("LOGNAME", "olga")
    Simulator(gateway.url).reset()
    with make_books(load_settings(("REDIS_URL", "STRIPE_SECRET_KEY"))) as books:
        yield books


def runs(books: Books) -> list[dict[str, Any]]:
    """Every run, as it stands."""
    return books.stored.rows("reconciliation_run")


def test_a_run_that_is_killed_goes_on_where_it_was(books: Books, tmp_path: Path) -> None:
    """SIGKILL in the middle: the same command carries on the same run, and every object is compared once."""
    now_s = int(datetime.now(UTC).timestamp())
    seeds = [{"amount": 500, "currency": "usd", "created": now_s - n} for n in range(COUNT)]
    made = books.simulator.act("seed", charges=seeds)["made"]
    books.simulator.fault("unavailable", times=None, path="/v1/charges*", reads=True)
    words = "reconcile", "--since", (datetime.now(UTC) - HOUR).isoformat()
    with subprocess.Popen([COMMAND, *words], stderr=subprocess.DEVNULL, env=os.environ) as child:
        wait_until(
            lambda: [row for row in runs(books) if row["phase"] == "charges"], LONG_S, "its second phase"
        )
        child.send_signal(signal.SIGKILL)
        child.wait(LONG_S)
    (killed,) = runs(books)
    assert (killed["finished_at"], killed["counts"]) == (None, {"intents": COUNT})
    books.simulator.reset()
    file = tmp_path / "breaks.csv"
    status, said = operate(*words, "--export", str(file))
    assert (status, f"carrying on run {killed['id']}" in said) == (OPEN, True), said
    (run,) = runs(books)
    assert (run["id"], run["counts"]["intents"], run["counts"]["charges"]) == (killed["id"], COUNT, COUNT)
    assert f"open breaks: {2 * COUNT}" in said
    with file.open() as rows:
        exported = list(csv.DictReader(rows))
    refs = {each[name] for each in made for name in ("payment_intent", "charge")}
    assert {row["ref"] for row in exported} == refs
    assert len(exported) == len(refs)
    assert json.loads(exported[0]["theirs"])["ref"] == exported[0]["ref"]


def test_the_exit_status_says_whether_the_books_agree(books: Books, tmp_path: Path) -> None:
    """0 while no break is open, 3 as long as one is; the JSON has both sides; the list shows what is open."""
    since = (datetime.now(UTC) - HOUR).isoformat()
    operation_id = books.order()
    books.attempt(operation_id)
    status, said = operate("reconcile", "--since", since)
    assert (status, "1 intents, 1 charges, 0 refunds, 1 ours" in said) == (0, True), said
    assert operate("breaks", "list")[0] == 0
    books.stored.change("UPDATE payment SET currency = 'EUR'")
    file = tmp_path / "breaks.json"
    status, said = operate("reconcile", "--since", since, "--heal", "--export", str(file))
    assert (status, "2 breaks written" in said) == (OPEN, True), said
    exported = json.loads(file.read_text())
    assert [(each["kind"], each["theirs"]["currency"]) for each in exported] == [("currency", "USD")] * 2
    assert {each["ours"]["payment"]["currency"] for each in exported} == {"EUR"}
    status, said = operate("breaks", "list", "--kind", "currency")
    assert (status, "not corrected by itself" in said) == (OPEN, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--since", "yesterday"], "no time like"),
        (["--since", "2999-01-01"], "nothing to compare"),
        (["--since", "2026-01-01", "--apply"], "--apply needs --heal"),
        (["--since", "2026-01-01", "--export", "breaks.txt"], ".csv or .json"),
    ],
)
def test_what_cannot_be_meant_is_refused(books: Books, words: list[str], told: str) -> None:
    """With status 2 and a reason, and without a run."""
    status, said = operate("reconcile", *words)
    assert (status, told in said) == (WRONG, True), said
    assert runs(books) == []


def test_the_scheduled_run_is_begun_carried_on_and_left_alone(books: Books) -> None:
    """Due so many hours after the last, carried on when nobody does, and never where it is switched off."""
    settings = load_settings(())
    assert scheduled.turn(books.desk, settings) is None
    operation_id = books.order()
    books.attempt(operation_id)
    assert scheduled.turn(books.desk, settings) is None  # it has only just begun to work
    books.stored.change("UPDATE payment SET created_at = now() - interval '25 hours'")
    assert scheduled.turn(books.desk, replace(settings, reconcile_every_h=0.0)) is None
    run = scheduled.turn(books.desk, settings)
    assert run is not None
    assert run.counts["intents"] == 1
    assert run.began_at - run.since >= timedelta(hours=settings.reconcile_back_h)
    assert scheduled.turn(books.desk, settings) is None
    books.stored.change("UPDATE reconciliation_run SET finished_at = NULL, phase = 'ours', cursor = NULL")
    assert scheduled.turn(books.desk, settings) is None  # somebody may be at it
    books.stored.change("UPDATE reconciliation_run SET moved_at = now() - interval '1 hour'")
    carried_on = scheduled.turn(books.desk, settings)
    assert carried_on is not None
    assert (carried_on.id, carried_on.finished_at is not None) == (run.id, True)
