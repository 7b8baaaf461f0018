"""Evidence: every attempt's exchanges can be looked up, are sealed, and never stand in a charge's way."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from payment_worker import evidence
from payment_worker.evidence import EvidenceWriter, make_evidence
from shared.evidence import EvidenceStore, NoEvidence, reference_of
from shared.sealing import CannotOpen, Sealer
from shared.settings import Settings
from tests.keys import DATA_KEY
from tests.operating import run
from tests.worker import Bench, make_bench

NEW_KEY = "another key, with which the tests replace the first one"
CARD = "pm_card_mastercard"
SOON_S = 30


@pytest.fixture
def folder(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that evidence is kept in."""
    monkeypatch.setenv("EVIDENCE_URL", str(tmp_path / "evidence"))
    return tmp_path / "evidence"


@pytest.fixture
def bench(folder: Path, settings: Settings) -> Iterator[Bench]:
    """Return a worker that keeps evidence."""
    with make_bench(settings) as made:
        made.worker = replace(made.worker, evidence=make_evidence(settings))
        yield made


def flushed(bench: Bench) -> None:
    """Wait until everything is written, or was given up."""
    assert bench.worker.evidence is not None
    assert bench.worker.evidence.flush(SOON_S)


def test_each_attempt_leaves_evidence_that_the_timeline_names(bench: Bench, folder: Path) -> None:
    """A first attempt whose answer is lost and the second: sealed files, shown by a command, redacted."""
    operation_id = bench.order(payment_method_id=CARD)
    bench.attempt(operation_id, fault="lost_response")
    bench.make_due(operation_id)
    bench.recover()
    flushed(bench)
    payment = bench.payment(operation_id)
    named = [(each.detail or {}).get("evidence") for each in bench.timeline(operation_id)]
    references = [each for each in named if each]
    assert [each.rpartition("-")[2] for each in references] == ["1", "2"]
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.sealed"))
    assert files == [f"{each}.sealed" for each in sorted(references)]
    for path in folder.rglob("*.sealed"):
        assert payment.gateway_ref is not None
        assert payment.gateway_ref.encode() not in path.read_bytes()
    shown = run("evidence", str(payment.id))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    first, second = (json.loads(line) for line in shown.stdout.splitlines())
    assert (first["evidence"], first["outcome"], first["exchanges"][0]["status"]) == (
        references[0], "Unknown", None,
    )  # fmt: skip
    assert (second["outcome"], second["exchanges"][0]["answer"]["status"]) == ("Succeeded", "succeeded")
    assert second["exchanges"][0]["answer"]["id"] == payment.gateway_ref
    for secret in (CARD, 'client_secret": "pi', bench.settings.stripe_secret_key):
        assert secret not in shown.stdout


def test_no_charge_fails_with_its_evidence(bench: Bench, folder: Path) -> None:
    """Storage that cannot be written to costs the evidence alone; the command says that it is not there."""
    folder.write_text("in the way")
    operation_id = bench.order()
    bench.attempt(operation_id)
    flushed(bench)
    payment = bench.payment(operation_id)
    assert payment.status == "succeeded"
    shown = run("evidence", str(payment.id))
    assert shown.stdout == ""
    assert "not there" in shown.stdout + shown.stderr


def test_what_cannot_wait_is_dropped() -> None:
    """A store that hangs fills a bounded queue, and keep returns all the same."""
    writer = EvidenceWriter(lambda _: [], waiting=2)
    writer._thread = threading.Thread()  # never begun, as one that hangs
    for number in range(5):
        writer.keep(f"2026-01-01/a/{number}-1", {}, [])
    assert writer._queue.qsize() == 2
    assert not writer.flush(0.01)


def test_a_store_says_what_it_does_not_have(folder: Path) -> None:
    """What was never written, and what was moved or changed, is not shown as something else."""
    store = EvidenceStore(str(folder), Sealer(DATA_KEY))
    store.write("2026-01-01/a/b-1", {"one": 1})
    assert store.read("2026-01-01/a/b-1") == {"one": 1}
    with pytest.raises(NoEvidence):
        store.read("2026-01-01/a/b-2")
    (folder / "2026-01-01/a/b-1.sealed").rename(folder / "2026-01-01/a/c-1.sealed")
    with pytest.raises(CannotOpen):
        store.read("2026-01-01/a/c-1")


def test_old_evidence_is_purged_by_its_day(bench: Bench, folder: Path) -> None:
    """Days that are over for longer than the setting says; nothing else in the folder is touched."""
    settings, sealer = bench.settings, Sealer(DATA_KEY)
    today = datetime.now(UTC)
    days = [today - timedelta(days=each) for each in (settings.retention_evidence_days + 1, 1, 0)]
    store, some_id = EvidenceStore(str(folder), sealer), bench.operation(bench.order()).id
    for day in days:
        store.write(reference_of(day, some_id, some_id, 1), {})
    (folder / "README").write_text("somebody's")
    assert evidence.purge(settings) == 1
    assert evidence.purge(settings) == 0
    left = {path.name for path in folder.iterdir()}
    assert left == {"README", *(day.date().isoformat() for day in days[1:])}


def test_evidence_outlives_a_change_of_keys(folder: Path) -> None:
    """Resealed, it needs the new key alone; what is under the new key already is left as it is.

    So is what a crash left half written.
    """
    EvidenceStore(str(folder), Sealer(DATA_KEY)).write("2026-01-01/a/b-1", {"one": 1})
    (folder / "2026-01-01/a/b-2.part").write_bytes(b"half")
    turning = EvidenceStore(str(folder), Sealer(NEW_KEY, DATA_KEY))
    assert list(turning.reseal()) == ["2026-01-01/a/b-1"]
    assert list(turning.reseal()) == []
    assert EvidenceStore(str(folder), Sealer(NEW_KEY)).read("2026-01-01/a/b-1") == {"one": 1}
