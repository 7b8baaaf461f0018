"""`payment-worker events`: announce again what another service may have lost, or what was parked."""

import time
import uuid
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click
import simplejson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from payment_worker.cli.command import Moment, console, main, operators_sessions, with_settings
from shared.database import Sessions
from shared.events import rfc3339
from shared.payments import Announcement
from shared.settings import Settings

if TYPE_CHECKING:
    from payment_worker.replay import Wanted

LOOK_AGAIN_S = 0.2
TYPES = [str(each) for each in Announcement]


@main.group()
def events() -> None:
    """Announce events again, and see which were parked."""


@events.command()
@click.option("--since", type=Moment(), required=True, help="from this time on, e.g. 2026-11-20T08:00:00Z")
@click.option("--until", type=Moment(), help="before this time; without it: now")
@click.option("--payment", type=click.UUID, help="only of this payment")
@click.option("--type", "event_type", type=click.Choice(TYPES), help="only of this type")
@click.option("--dry-run", is_flag=True, help="only say how many there are")
@with_settings("events replay", "DATABASE_URL", changes=True)
def replay(
    settings: Settings,
    *,
    since: datetime,
    until: datetime | None,
    payment: uuid.UUID | None,
    event_type: str | None,
    dry_run: bool,
) -> None:
    """Send events again under their own ids, each payment's in their order; requests are among them.

    Subscribers drop by ce_id what they have; the worker leaves alone what it has done. When interrupted, go
    on with the --since that was shown last.
    """
    from payment_worker.replay import Wanted, count

    wanted = Wanted(
        since=since,
        until=until or datetime.now(UTC),
        payment_id=payment,
        type=Announcement(event_type) if event_type else None,
    )
    with operators_sessions(settings) as sessions:
        found = count(sessions, wanted)
        for name, number in found.items():
            click.echo(f"{name}: {number}")
        total = sum(found.values())
        if dry_run or not total:
            click.echo(f"{total} to announce again; nothing was done")
        else:
            click.echo(f"{_replay(sessions, wanted, total)} announced again")


def _replay(sessions: Sessions, wanted: "Wanted", total: int) -> int:
    from payment_worker.replay import replay as batches

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    done = 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("announcing again", total=total)
        for batch in batches(sessions, wanted, partial(_make_room, sessions, bar)):
            done += batch.announced
            bar.update(task, completed=done, description=f"to go on: --since {rfc3339(batch.reached)}")
    return done


def _make_room(sessions: Sessions, bar: Progress) -> None:
    """Wait until the relay has sent most of what waits, so that new events need not wait long behind it."""
    from payment_worker.replay import MAX_WAITING, waiting

    told = False
    while waiting(sessions) > MAX_WAITING:
        if not told:
            bar.console.print("waiting for the relay")
            told = True
        time.sleep(LOOK_AGAIN_S)


@events.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line, with the event's value")
@with_settings("events parked", "DATABASE_URL")
def parked(settings: Settings, limit: int, *, as_json: bool) -> None:
    """List events that break their own schema or are too large, oldest first; they hold nobody else up."""
    from payment_worker.parked import parked as found

    table = Table()
    for head in ("event", "type", "payment", "since (UTC)", "reason"):
        table.add_column(head, overflow="fold")
    with operators_sessions(settings) as sessions:
        for each in found(sessions, limit):
            ids = {"id": str(each.id), "type": each.type, "paymentId": str(each.aggregateid)}
            if as_json:
                more = {"createdAt": rfc3339(each.created_at), "reason": each.parked_reason}
                click.echo(simplejson.dumps({**ids, **more, "value": each.payload}))
            else:
                table.add_row(*ids.values(), f"{each.created_at:%F %T}", each.parked_reason or "")
    if not as_json:
        console().print(table if table.row_count else "no event is parked")


@events.command()
@click.argument("event_ids", metavar="[EVENT_ID]...", type=click.UUID, nargs=-1)
@click.option("--all", "every", is_flag=True, help="all that are parked")
@with_settings("events unpark", "DATABASE_URL", changes=True)
def unpark(settings: Settings, event_ids: tuple[uuid.UUID, ...], *, every: bool) -> None:
    """Let the relay try parked events again, once they are mended; what is still wrong is parked again."""
    from payment_worker.parked import unpark as let_go

    if bool(event_ids) == every:
        raise click.UsageError("give either event ids or --all")
    with operators_sessions(settings) as sessions:
        done = let_go(sessions, None if every else event_ids)
    click.echo(f"tried again: {', '.join(map(str, done)) or 'nothing'}")
    if unknown := sorted({*map(str, event_ids)} - {*map(str, done)}):
        raise click.ClickException(f"not parked: {', '.join(unknown)}")
