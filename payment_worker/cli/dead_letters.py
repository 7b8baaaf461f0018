"""`payment-worker dead-letters`: look at what could not be read, and send it again."""

import getpass
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import simplejson
from rich.markup import escape
from rich.table import Table

from payment_worker.cli.command import Moment, console, main, operators_sessions, with_settings
from payment_worker.letters import DeadLetter, Reason
from shared.card_numbers import REDACTED, redact, redact_document
from shared.documents import parse_json
from shared.events import rfc3339
from shared.settings import Settings

if TYPE_CHECKING:
    from payment_worker.dead_letters import Wanted
    from payment_worker.redriving import Told
    from shared.kafka import KafkaSettings

NEEDS = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
REASONS = [str(each) for each in Reason]
MAX_SHOWN = 4_000  # characters of a value
# In what is no JSON a field is only a guess.
_CODE = re.compile(r"(?i)((?:cvc|cvv|cvn|csc|ccv)[0-9]?\W{1,5})\d{3,4}")


@main.group(name="dead-letters")
def dead_letters() -> None:
    """Messages that could not be read, or broke here."""


def _which(body: Callable[..., None]) -> Callable[..., None]:
    """The options that choose letters."""
    for option in (
        click.option(
            "--since", type=Moment(), help="only what was buried from then on: 2026-11-20T08:00:00Z"
        ),
        click.option("--topic", help="only what came from this topic, named without the prefix"),
        click.option("--reason", type=click.Choice(REASONS), help="only this class of reason"),
    ):
        body = option(body)
    return body


_as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table")


def _wanted(places: Iterable[str], reason: str | None, topic: str | None, since: datetime | None) -> "Wanted":
    from payment_worker.dead_letters import Wanted

    return Wanted(
        places=frozenset(places), reason=Reason(reason) if reason else None, topic=topic, since=since
    )


def _read(settings: Settings, wanted: "Wanted") -> Iterable[DeadLetter]:
    """The letters; a broker that is away ends the command with a message."""
    from confluent_kafka import KafkaException

    from payment_worker.dead_letters import BrokerSilent, read

    try:
        yield from read(_kafka(settings), settings.kafka_topic_prefix, wanted)
    except (BrokerSilent, KafkaException) as error:
        raise click.ClickException(f"the dead letters could not be read: {error}") from None


def _kafka(settings: Settings) -> "KafkaSettings":
    from shared.kafka import KafkaSettings

    return KafkaSettings(settings.kafka_bootstrap_servers, settings.kafka_config)


@dead_letters.command(name="list")
@_which
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="the newest")
@_as_json
@with_settings("dead-letters list", *NEEDS)
def list_letters(
    settings: Settings,
    *,
    reason: str | None,
    topic: str | None,
    since: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List letters, the newest last: where each came from, what was wrong, and whether it was sent again."""
    from payment_worker.redriving import sent_before

    counted: Counter[str] = Counter()
    newest: deque[DeadLetter] = deque(maxlen=limit)
    for letter in _read(settings, _wanted((), reason, topic, since)):
        counted[letter.reason] += 1
        newest.append(letter)
    with operators_sessions(settings) as sessions:
        sent = sent_before(sessions, newest)
    if as_json:
        rows = [_facts(each, sent.get(each.id)) for each in newest]
        click.echo(simplejson.dumps(rows, indent=2))
        return
    table = Table(title=f"{counted.total()} dead letters", title_justify="left", title_style="bold")
    for head in ("id", "buried (UTC)", "reason", "from", "key", "error", "sent again (UTC)"):
        table.add_column(head, overflow="fold")
    for each in newest:
        again = sent.get(each.id)
        table.add_row(
            each.place,
            f"{each.buried_at:%F %T}" if each.buried_at else "",
            each.reason,
            escape(str(each.origin or "")),
            escape(_text(each.key)),
            escape(each.error),
            f"{again.astimezone(UTC):%F %T}" if again else "",
        )
    console().print(table)
    click.echo(", ".join(f"{number} {name}" for name, number in sorted(counted.items())) or "none")
    if counted.total() > limit:
        click.echo(f"only the newest {limit} are shown")


@dead_letters.command()
@click.argument("letter")
@_as_json
@with_settings("dead-letters show", *NEEDS)
def show(settings: Settings, letter: str, *, as_json: bool) -> None:
    """Show one LETTER, by its id (partition/offset): key, headers and value, card numbers taken out."""
    from payment_worker.redriving import sent_before

    found = next(iter(_read(settings, _wanted([letter], None, None, None))), None)
    if found is None:
        raise click.ClickException(f"no dead letter {letter}; `dead-letters list` shows their ids, like 0/17")
    with operators_sessions(settings) as sessions:
        again = sent_before(sessions, [found]).get(found.id)
    value = _value(found.value)
    facts = _facts(found, again) | {
        "headers": [{"name": name, "value": _text(raw)} for name, raw in found.headers],
        "value": value,
    }
    if as_json:
        click.echo(simplejson.dumps(facts, indent=2, use_decimal=True))
        return
    table = Table(title=f"Dead letter {found.place}", title_justify="left", title_style="bold")
    for head in ("what", "value"):
        table.add_column(head, overflow="fold")
    text = value if isinstance(value, str) else simplejson.dumps(value, indent=2, use_decimal=True)
    headers = "\n".join(f"{each['name']}: {each['value']}" for each in facts["headers"])
    for name, each in (facts | {"headers": headers, "value": text[:MAX_SHOWN]}).items():
        if each is not None:
            table.add_row(name, escape(str(each)))
    console().print(table)


@dead_letters.command()
@click.argument("letters", nargs=-1)
@_which
@click.option("--all", "everything", is_flag=True, help="every letter that there is")
@click.option("--dry-run", is_flag=True, help="only say what would be done")
@_as_json
@with_settings("dead-letters redrive", *NEEDS, changes=True)
def redrive(
    settings: Settings,
    *,
    letters: tuple[str, ...],
    reason: str | None,
    topic: str | None,
    since: datetime | None,
    everything: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send messages again to the topics they came from: LETTERS by their ids, or all that the options choose.

    A message is sent once, however often this is repeated; what still cannot be read comes back as a new
    letter. Status 1 when something is left to be done.
    """
    if not (letters or reason or topic or since or everything):
        raise click.UsageError("say which: ids, --reason, --topic, --since or --all")
    told = _redrive(settings, _wanted(letters, reason, topic, since), dry_run=dry_run)
    if missing := sorted(set(letters) - {each.letter.place for each in told}):
        click.echo(f"no such dead letter: {', '.join(missing)}", err=True)
    if as_json:
        rows = [_facts(each.letter, None) | {"result": str(each.result)} for each in told]
        click.echo(simplejson.dumps(rows, indent=2))
    else:
        for each in told:
            click.echo(f"{each.letter.place} from {each.letter.origin or 'nowhere'}: {each.result}")
        counted = Counter(str(each.result) for each in told)
        click.echo(", ".join(f"{number} {name}" for name, number in sorted(counted.items())) or "nothing")
    from payment_worker.redriving import UNDONE

    if missing or any(each.result in UNDONE for each in told):
        raise SystemExit(1)


def _redrive(settings: Settings, wanted: "Wanted", *, dry_run: bool) -> list["Told"]:
    from payment_worker import redriving
    from shared.kafka import Deliveries

    deliveries = Deliveries(_kafka(settings), "payment-redrive")
    try:
        with operators_sessions(settings) as sessions:
            return list(
                redriving.redrive(
                    sessions,
                    None if dry_run else deliveries.deliver,
                    # All of them first: what is sent and cannot be read comes back while we are at it.
                    list(_read(settings, wanted)),
                    prefix=settings.kafka_topic_prefix,
                    actor=getpass.getuser(),
                )
            )
    finally:
        deliveries.close()


def _facts(letter: DeadLetter, sent_again: datetime | None) -> dict[str, Any]:
    return {
        "id": letter.place,
        "buriedAt": rfc3339(letter.buried_at) if letter.buried_at else None,
        "reason": str(letter.reason),
        "error": letter.error or None,
        "errorClass": letter.error_class or None,
        "origin": str(letter.origin) if letter.origin else None,
        "sentAt": letter.sent_at or None,
        "notKeptBytes": letter.cut_bytes,
        "key": _text(letter.key) if letter.key is not None else None,
        "sentAgainAt": rfc3339(sent_again) if sent_again else None,
    }


def _text(raw: bytes | None) -> str:
    return _CODE.sub(rf"\1{REDACTED}", redact((raw or b"").decode(errors="backslashreplace")))


def _value(raw: bytes | None) -> Any:
    """The JSON of a value, or its text where it is none; without card numbers and security codes."""
    if raw is None:
        return None
    try:
        return redact_document(parse_json(raw))
    except ValueError:
        return _text(raw)
