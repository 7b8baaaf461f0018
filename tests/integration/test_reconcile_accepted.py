"""Breaks that an operator knows of and accepts: kept, shown, and not counted until their evidence changes."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

from payment_worker.cli import main
from payment_worker.figures import Figures
from payment_worker.reconciling import breaks
from payment_worker.reconciling.breaks import NotAccepted
from shared.commands.restore import mark_restored
from shared.settings import load_settings
from shared.wakeup import connect_redis
from tests.books import HOUR, Books, make_books
from tests.operating import operate
from tests.simulator import Simulator
from tests.stripe_process import Running

OPEN, WRONG = 3, 2
WHY = "the books of spring; agreed with finance"


@pytest.fixture
def books(environment: dict[str, str], gateway: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    """Books in which a charge and its PaymentIntent are in another currency here; olga is logged in."""
    monkeypatch.setenv("STRIPE_API_URL", gateway.url)
    monkeypatch.setenv("RECONCILE_MARGIN_S", "0")
    monkeypatch.setenv("LOGNAME", "olga")
    Simulator(gateway.url).reset()
    with make_books(load_settings(("REDIS_URL", "STRIPE_SECRET_KEY"))) as books:
        books.attempt(books.order())
        differ(books, "EUR")
        yield books


def differ(books: Books, currency: str) -> None:
    """Let our row say another currency, and have that found."""
    books.stored.change("UPDATE payment SET currency = %s", currency)
    assert len(books.compare()) == 2


def accept(books: Books, *break_ids: uuid.UUID) -> None:
    """Accept these breaks."""
    with books.sessions.begin() as session:
        breaks.accept(session, break_ids, "olga", WHY)


def counted(books: Books) -> tuple[float, float]:
    """How many breaks in a currency are open, and how many accepted, as Prometheus is told."""
    families = Figures(books.sessions, connect_redis(books.settings.redis_url)).collect()
    samples = [each for family in families for each in family.samples if "_breaks" in each.name]
    found = {each.name.split("_")[2]: each.value for each in samples if each.labels["kind"] == "currency"}
    return found["open"], found["accepted"]


def test_what_is_accepted_does_not_count_and_stays_in_the_list(books: Books) -> None:
    """It ends the alarm and is not repaired; who, when and why is shown and audited; it can be taken back."""
    ids = [str(each.id) for each in books.open()]
    status, said = operate("breaks", "accept", *ids, "--reason", WHY)
    assert (status, said.count("accepted: currency of")) == (0, 2), said
    since = (datetime.now(UTC) - HOUR).isoformat()
    status, said = operate("reconcile", "--since", since, "--heal", "--apply")
    assert (status, "open breaks: 0\n" in said, "which do not count: 2;" in said) == (0, True, True), said
    status, said = operate("breaks", "list", "--json")
    rows: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    assert (status, [each["id"] for each in rows]) == (0, ids)
    told = {(each["acceptedBy"], each["acceptedReason"], each["resolvedAt"], each["repair"]) for each in rows}
    assert told == {("olga", WHY, None, None)}
    trail = json.loads(operate("audit", "list", "--json")[1])
    accepted = next(each for each in trail if each["action"] == "payment-worker breaks accept")
    assert accepted["subject"] == {"break_ids": ids, "reason": WHY}
    assert operate("breaks", "reopen", ids[0])[0] == 0
    status, said = operate("breaks", "list")
    assert (status, said.count("accepted by olga")) == (OPEN, 1), said


def test_what_is_accepted_counts_again_when_its_evidence_changes(books: Books) -> None:
    """As long as both sides say the same it stays accepted; then it is open, and its acceptance is gone."""
    first, second = (each.id for each in books.open())
    accept(books, first)
    assert counted(books) == (1, 1)
    accept(books, second)
    differ(books, "EUR")
    assert counted(books) == (0, 2)
    differ(books, "GBP")
    assert counted(books) == (2, 0)
    assert [(each.id, each.accepted_reason) for each in books.open()] == [(first, None), (second, None)]
    books.stored.change("UPDATE payment SET currency = 'USD'")
    assert books.compare() == []


def test_what_cannot_be_accepted_changes_nothing(books: Books) -> None:
    """One that nobody knows, and one that is resolved: each is named, and the others are not accepted."""
    first, second = (each.id for each in books.open())
    nobodys = uuid.uuid4()
    with pytest.raises(NotAccepted, match=f"no such break: {nobodys}"):
        accept(books, first, nobodys)
    books.stored.change(
        "UPDATE reconciliation_break SET resolved_at=now(), resolution='x' WHERE id=%s", second
    )
    with pytest.raises(NotAccepted, match=f"break {second} is resolved: x"):
        accept(books, first, second)
    assert counted(books) == (1, 0)


@pytest.mark.parametrize("reason", [" ", "two\nlines", "x" * 501, "paid with 4242 4242 4242 4242"])
def test_a_reason_is_a_line_without_a_card_number(reason: str) -> None:
    """Anything else is refused before it is stored anywhere, the audit trail included, and not shown."""
    words = ["breaks", "accept", str(uuid.uuid4()), "--reason", reason]
    refused = CliRunner().invoke(main, words)
    assert (refused.exit_code, "--reason" in refused.output) == (WRONG, True)
    assert "4242" not in refused.output


def test_after_a_restore_what_might_be_charged_again_is_not_accepted(books: Books) -> None:
    """A payment that is missing here is rebuilt; accepting it would let operations go on without it."""
    lost, _ = (each.id for each in books.open())
    books.stored.change("UPDATE reconciliation_break SET kind = 'missing_here' WHERE id = %s", lost)
    mark_restored(books.sessions, datetime.now(UTC) - HOUR, "olga")
    with pytest.raises(NotAccepted, match="rebuild it"):
        accept(books, lost)
