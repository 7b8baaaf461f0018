"""Dead letters: each says why it was buried, shows no card data, and is sent again once in effect."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, update

from payment_worker import letters as letters_module
from payment_worker import redriving
from payment_worker.commands import Desk
from payment_worker.dead_letters import Wanted, read
from payment_worker.letters import DeadLetter, Reason
from payment_worker.redriving import Outgoing, Result, redrive
from shared.events import DEAD_LETTERS, MAX_VALUE_BYTES
from shared.kafka import Deliveries
from shared.models import plain
from shared.models_redrives import Redrive
from shared.payments import Command
from shared.settings import Settings
from tests.door import Door, cart
from tests.factories import as_json
from tests.operating import operate
from tests.topics import PROMPT, kafka_of, read_topics, write

AUTHORIZE = Command.AUTHORIZE_PAYMENT
CARD = "4242424242424242"


@pytest.fixture
def deliveries(settings: Settings) -> Iterator[Deliveries]:
    """A producer of letters."""
    made = Deliveries(kafka_of(settings, **PROMPT), "test-redrive")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What is buried is logged; here that is the rule."""
    with caplog.at_level(logging.CRITICAL):
        yield


def letters(settings: Settings, **wanted: Any) -> list[DeadLetter]:
    """Read the topic as the commands do."""
    return list(read(kafka_of(settings), settings.kafka_topic_prefix, Wanted(**wanted)))


def listed(*words: str) -> list[dict[str, Any]]:
    """What the command lists, as JSON."""
    status, said = operate("dead-letters", "list", "--json", *words)
    assert status == 0, said
    found: list[dict[str, Any]] = json.loads(said)
    return found


def fault(*_: object) -> None:
    """What breaks a command that could be read."""
    raise LookupError("a fault of ours")


def bury_one_that_breaks_here(door: Door, monkeypatch: pytest.MonkeyPatch, **headers: str) -> dict[str, Any]:
    """A good command that meets a fault of ours, which is mended afterwards; return its value."""
    with monkeypatch.context() as broken:
        broken.setattr(Desk, "_authorize", fault)
        value = cart()
        door.ask(AUTHORIZE, value, **headers)
    assert door.payments() == []
    return value


def test_each_reason_has_a_class(door: Door, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was wrong, of every kind, where it came from; the filters find each; a huge one is not kept."""
    monkeypatch.setattr(letters_module, "MAX_LETTER_BYTES", MAX_VALUE_BYTES + 1_000)
    bury_one_that_breaks_here(door, monkeypatch)
    huge = b" " * (MAX_VALUE_BYTES + 1)
    door.send(AUTHORIZE, b"{", cart(amount="1"), huge, huge + b" " * 1_000)
    door.handle(4)
    write(settings, DEAD_LETTERS, [(None, b"somebody else's", [])])
    found = letters(settings)
    assert [str(each.reason) for each in found] == [
        "failed", "unreadable", "schema", "too-large", "too-large", "foreign"
    ]  # fmt: skip
    assert [each.cut_bytes for each in found] == [None, None, None, None, len(huge) + 1_000 + 7, None]
    assert found[3].value == huge
    assert found[4].value is None
    rows = listed()
    assert [each["reason"] for each in rows] == [str(each.reason) for each in found]
    assert {each["origin"].split("/")[0] for each in rows[:-1]} == {settings.kafka_topic_prefix + AUTHORIZE}
    assert [each["id"] for each in listed("--reason", "schema")] == [found[2].place]
    assert len(listed("--topic", "authorize-payment")) == 5
    assert listed("--topic", "refund-payment") == []
    assert len(listed("--limit", "2")) == 2
    assert listed("--since", (datetime.now(UTC) + timedelta(hours=1)).isoformat()) == []
    status, said = operate("dead-letters", "list")
    assert (status, "6 dead letters" in said, "2 too-large" in said) == (0, True, True)


def test_show_takes_card_data_out(door: Door, settings: Settings) -> None:
    """Key, headers and value of one letter, without card numbers and security codes."""
    origin = {"dlq_topic": settings.kafka_topic_prefix + AUTHORIZE, "dlq_partition": "1", "dlq_offset": "2"}
    as_headers = [(name, text.encode()) for name, text in {"note": f"also {CARD}", **origin}.items()]
    readable = as_json({"note": f"it is {CARD}", "number": int(CARD), "card": {"cvc": "123"}, "left": "this"})
    broken = f'{{"cvc": "987", "pan": "{CARD}", "left": "this'
    key = f"key {CARD}".encode()
    write(settings, DEAD_LETTERS, [(key, each.encode(), as_headers) for each in (readable, broken)])
    for place in ("0/0", "0/1"):
        for flags in ([], ["--json"]):
            status, said = operate("dead-letters", "show", place, *flags)
            assert status == 0, said
            left = "it is [redacted]" if place == "0/0" else "pan"
            assert all(each in said for each in ("key [redacted]", "also [redacted]", "this", left))
            assert not any(each in said for each in (CARD, '"123"', "987"))
    assert CARD not in operate("dead-letters", "list")[1]
    status, said = operate("dead-letters", "show", "0/99")
    assert (status, "no dead letter 0/99" in said) == (1, True)


@pytest.mark.parametrize("headers", [{}, {"ce_id": "the-senders-own"}], ids=["without an id", "with one"])
def test_what_is_sent_again_takes_effect_once(
    door: Door, settings: Settings, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """The message goes where it came from, as it was; a second time does nothing."""
    value = bury_one_that_breaks_here(door, monkeypatch, **headers)
    (letter,) = letters(settings)
    status, said = operate("dead-letters", "redrive", letter.place, "--dry-run")
    assert (status, "1 would be sent again" in said) == (0, True)
    status, said = operate("dead-letters", "redrive", "--reason", "failed")
    assert (status, "1 sent again" in said) == (0, True)
    door.handle(1)
    (payment,) = door.payments()
    assert payment["customerId"] == value["customerId"]
    first, again = read_topics(settings, AUTHORIZE, count=2)
    assert (again.key, again.raw) == (first.key, first.raw)
    own_id = f"authorize-payment/{first.partition}/{first.offset}"
    assert again.named == (headers or {"ce_id": own_id})
    assert [row["message_id"] for row in door.inbox()] == [headers.get("ce_id", own_id)]
    for words in ([letter.place], ["--all"], ["--all", "--dry-run"]):
        status, said = operate("dead-letters", "redrive", *words)
        assert (status, "1 was sent again before" in said) == (0, True), said
    assert len(read_topics(settings, AUTHORIZE, count=2)) == 2
    assert listed()[0]["sentAgainAt"]


def test_a_sender_that_dies_in_between(
    door: Door, settings: Settings, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before or after the broker has it: nobody else sends it for a minute; then with one effect."""
    bury_one_that_breaks_here(door, monkeypatch)
    found = letters(settings)
    sessions = door.shop.bench.sessions

    class Death(BaseException):
        """The process ends here."""

    def die_after(outgoing: list[Outgoing]) -> set[Any]:
        deliveries.deliver(outgoing)
        raise Death

    def die_before(_: list[Outgoing]) -> set[Any]:
        raise Death

    def attempt(deliver: Any) -> Result:
        told = redrive(sessions, deliver, found, prefix=settings.kafka_topic_prefix, actor="test")
        return next(told).result

    for death in (die_before, die_after):
        with pytest.raises(Death):
            attempt(death)
        assert attempt(deliveries.deliver) is Result.CLAIMED
        with sessions.begin() as session:
            past = func.clock_timestamp() - redriving.CLAIM
            session.execute(update(plain(Redrive)).values(claimed_until=past))
    assert attempt(deliveries.deliver) is Result.SENT
    door.handle(2)  # it was sent twice ...
    assert len(door.payments()) == len(door.inbox()) == 1  # ... and took effect once
    assert attempt(deliveries.deliver) is Result.DONE_BEFORE


def test_a_message_that_was_buried_twice_is_sent_once(
    door: Door, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that died before its commit buries a message again: both letters are about one message."""
    bury_one_that_breaks_here(door, monkeypatch)
    (letter,) = read_topics(settings, DEAD_LETTERS, count=1)
    write(
        settings,
        DEAD_LETTERS,
        [(letter.key, letter.raw, [(name, text.encode()) for name, text in letter.headers])],
    )
    assert operate("dead-letters", "redrive", "--all")[0] == 0
    assert operate("dead-letters", "redrive", "--all")[0] == 0
    assert len(read_topics(settings, AUTHORIZE, count=2)) == 2


def test_what_is_not_confirmed_may_be_tried_at_once(
    door: Door, settings: Settings, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is away leaves the letter for the next time, without a wait."""
    bury_one_that_breaks_here(door, monkeypatch)
    found, sessions = letters(settings), door.shop.bench.sessions
    about = {"prefix": settings.kafka_topic_prefix, "actor": "test"}
    (told,) = redrive(sessions, lambda _: set(), found, **about)
    assert told.result is Result.NOT_CONFIRMED
    (told,) = redrive(sessions, deliveries.deliver, found, **about)
    assert told.result is Result.SENT


def test_what_cannot_be_sent_again_is_refused(
    door: Door, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters of others, to other topics, and those too large to be kept stay; no choice is no choice."""
    monkeypatch.setattr(letters_module, "MAX_LETTER_BYTES", 2_000)
    door.send(AUTHORIZE, b"x" * 3_000)
    door.handle(1)
    elsewhere = {"dlq_topic": "another-service", "dlq_partition": "0", "dlq_offset": "1"}
    back = elsewhere | {"dlq_topic": settings.kafka_topic_prefix + DEAD_LETTERS}
    for each in (elsewhere, back, {"dlq_topic": "x"}):
        write(settings, DEAD_LETTERS, [(b"k", b"v", [(name, text.encode()) for name, text in each.items()])])
    status, said = operate("dead-letters", "redrive", "--all")
    assert (status, "1 was too large to be kept" in said, "3 no letter of ours" in said) == (0, True, True)
    assert len(letters(settings)) == 4
    assert operate("dead-letters", "redrive")[0] == 2
    assert operate("dead-letters", "redrive", "0/77")[0] == 1
    assert letters(settings, reason=Reason.TOO_LARGE)[0].value is None
