"""`payment-worker reconcile` and `breaks`: compare the gateway's books with ours, and see what differs."""

import getpass
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import simplejson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy.orm import Session

from payment_worker.cli.command import Moment, console, main, operators_sessions, with_settings
from shared.card_numbers import find_card_data
from shared.database import Sessions, reading
from shared.events import rfc3339
from shared.models_reconciliation import BREAK_KINDS
from shared.settings import WORKER_NEEDS, Settings

if TYPE_CHECKING:
    from payment_worker.reconciling.desk import Desk
    from payment_worker.reconciling.runs import Run

OPEN_BREAKS = 3  # the exit status; 1: it could not be completed, 2: wrong usage or settings
PATIENCE_S = 120.0  # a gateway that is away for longer ends the command, which can be repeated
SHOWN_MAX = 50
REASON_MAX = 500


class Export(click.Path):
    """A file to write, whose name says in which form."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Check the name's end and that its folder is there."""
        from payment_worker.reconciling.report import FORMATS

        path = Path(value)
        if path.suffix.lower() not in FORMATS:
            self.fail(f"{value} must end in {' or '.join(FORMATS)}", param, ctx)
        if not path.absolute().parent.is_dir():
            self.fail(f"there is no folder {path.parent}", param, ctx)
        return path


@main.command()
@click.option("--since", type=Moment(), required=True, help="what Stripe made from this time on")
@click.option("--until", type=Moment(), help="and before this time; without it: RECONCILE_MARGIN_S ago")
@click.option("--heal", is_flag=True, help="say of each break what could be done about it")
@click.option("--apply", "applies", is_flag=True, help="with --heal: do what is safe, as a webhook would")
@click.option("--export", "path", type=Export(), help="write the breaks to FILE.csv or FILE.json")
@click.option("--anew", is_flag=True, help="do not carry on a run over this window that was interrupted")
@with_settings("reconcile", *WORKER_NEEDS, changes="applies")
def reconcile(
    settings: Settings,
    *,
    since: datetime,
    until: datetime | None,
    heal: bool,
    applies: bool,
    path: Path | None,
    anew: bool,
) -> None:
    """Compare every PaymentIntent, charge and refund at Stripe with our rows, both ways.

    Interrupted, the same command goes on where it was. Exit status 0: no break is open; 3: some are; 1: it
    could not be completed; 2: wrong usage or settings.
    """
    from payment_worker.reconciling import pages, report, runs
    from payment_worker.reconciling.breaks import each
    from shared.gateways import GatewayUnavailable

    if applies and not heal:
        raise click.UsageError("--apply needs --heal")
    with _desk(settings) as desk:
        sessions = desk.worker.sessions
        run = None if anew else runs.unfinished(sessions, since, until, applies=applies)
        if run:
            click.echo(f"carrying on run {run.id}, at {run.phase}", err=True)
        else:
            run = _begin(sessions, settings, since, until, heals=heal, applies=applies)
        before = runs.standing_mark(sessions)
        try:
            with _progress(run) as show:
                pages.carry_on(desk, run, show)
        except (GatewayUnavailable, runs.Overtaken) as error:
            raise click.ClickException(f"interrupted: {error}; the same command goes on from here") from None
        _tell(sessions, run)
        if path:
            click.echo(f"{report.export(path, each(sessions, run_id=run.id))} breaks written to {path}")
        if before:
            _tell_of_restore(sessions)
        sys.exit(OPEN_BREAKS if run.counts["open"] else 0)


def _begin(
    sessions: Sessions, settings: Settings, since: datetime, until: datetime | None, **how: bool
) -> "Run":
    from payment_worker.reconciling import runs

    margin = timedelta(seconds=settings.reconcile_margin_s)
    try:
        return runs.begin(sessions, since, until, margin, actor=getpass.getuser(), **how)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@contextmanager
def _desk(settings: Settings) -> "Iterator[Desk]":
    from payment_worker.gate import make_gate
    from payment_worker.leases import Leases
    from payment_worker.processing import Worker
    from payment_worker.reconciling.desk import Desk
    from shared.gateways.stripe import StripeGateway
    from shared.gateways.stripe_ledger import StripeLedger
    from shared.wakeup import Announcer, connect_redis

    key, url = settings.stripe_secret_key, settings.stripe_api_url
    with operators_sessions(settings) as sessions:
        gate = make_gate(sessions, settings)
        worker = Worker(
            sessions=sessions,
            gateway=StripeGateway(key, url, pool_size=1, before_page=gate.next_page),
            gate=gate,
            leases=Leases(sessions, settings.lease_s),
            lease_s=settings.lease_s,
            announce_change=Announcer(connect_redis(settings.redis_url)),
            abandon_after=timedelta(seconds=settings.action_timeout_s),
        )
        yield Desk(worker=worker, ledger=StripeLedger(key, url), patience_s=PATIENCE_S)


@contextmanager
def _progress(run: "Run") -> Iterator[Any]:
    """A bar over the phases, with the number of objects that were dealt with in each."""
    from payment_worker.reconciling.runs import PHASES

    columns = BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(_counted(run), total=len(PHASES))

        def show(run: "Run") -> None:
            done = PHASES.index(run.phase) if run.phase in PHASES else len(PHASES)
            bar.update(task, completed=done, description=_counted(run))

        show(run)
        yield show


def _counted(run: "Run") -> str:
    dealt = {name: number for name, number in run.counts.items() if name != "open"}
    told = ", ".join(f"{number:,} {name}" for name, number in dealt.items())
    return f"{run.phase}: {told}" if told else run.phase


def _tell(sessions: Sessions, run: "Run") -> None:
    from payment_worker.reconciling.breaks import accepted_count, each

    dealt = {name: run.counts.get(name, 0) for name in ("intents", "charges", "refunds", "ours")}
    words = ", ".join(f"{number:,} {name}" for name, number in dealt.items())
    click.echo(f"compared from {rfc3339(run.since)} to {rfc3339(run.until)}: {words}")
    table, number = _table(each(sessions, accepted=False))
    if number:
        console().print(table)
    click.echo(f"open breaks: {number}" + (f", {SHOWN_MAX} are shown" if number > SHOWN_MAX else ""))
    if accepted := accepted_count(sessions):
        click.echo(f"accepted breaks, which do not count: {accepted}; see `payment-worker breaks list`")


def _tell_of_restore(sessions: Sessions) -> None:
    from payment_worker.reconciling.runs import standing_mark
    from shared.commands.restore import way_out

    mark = standing_mark(sessions)
    if mark:
        click.echo(f"still restored, and paused: no break may be open, and the run must be {way_out(mark)}")
    else:
        click.echo("the restore is complete: what it had lost is rebuilt, and operations go on")


def _table(found: Any) -> tuple[Table, int]:
    table, number = Table(), 0
    for head in ("break", "kind", "object", "payment", "reason", "repair or acceptance"):
        table.add_column(head, overflow="fold")
    for number, each in enumerate(found, 1):
        if number <= SHOWN_MAX:
            what = f"{each.object}\n{each.ref}"
            told = each.reason, _acceptance(each) or each.repair or ""
            table.add_row(str(each.id), each.kind, what, str(each.payment_id or ""), *told)
    return table, number


def _acceptance(found: Any) -> str:
    by = f"accepted by {found.accepted_by} on {found.accepted_at:%Y-%m-%d}" if found.accepted_at else ""
    return f"{by}: {found.accepted_reason}" if by else ""


@main.group()
def breaks() -> None:
    """Where the gateway's books and ours differ."""


@breaks.command(name="list")
@click.option("--all", "resolved", is_flag=True, help="those that were resolved, too")
@click.option("--kind", type=click.Choice(BREAK_KINDS), help="only of this kind")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line, with what both sides said")
@with_settings("breaks list", "DATABASE_URL")
def list_breaks(settings: Settings, *, resolved: bool, kind: str | None, as_json: bool) -> None:
    """List the breaks that are open or accepted, oldest first. Exit status 3 when any is open."""
    from payment_worker.reconciling.breaks import each, open_counts
    from payment_worker.reconciling.report import row_of

    with operators_sessions(settings) as sessions:
        found = each(sessions, resolved=resolved, kind=kind)
        if as_json:
            for one in found:
                click.echo(simplejson.dumps(row_of(one)))
        else:
            table, number = _table(found)
            console().print(table if number else "no breaks")
        with reading(sessions) as session:
            is_any_open = any(open_counts(session).values())
    sys.exit(OPEN_BREAKS if is_any_open else 0)


def _reason(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not (0 < len(value.strip()) <= REASON_MAX) or not value.isprintable():
        raise click.BadParameter(f"must be one line of 1 to {REASON_MAX} characters")
    if find_card_data(value):
        raise click.BadParameter("holds a card number, which is never stored")
    return value.strip()


@breaks.command()
@click.argument("break_ids", metavar="BREAK...", type=click.UUID, nargs=-1, required=True)
@click.option(
    "--reason", required=True, callback=_reason, help="why nothing is to be done; it is shown beside it"
)
@with_settings("breaks accept", "DATABASE_URL", changes=True)
def accept(settings: Settings, break_ids: tuple[uuid.UUID, ...], reason: str) -> None:
    """Say of breaks that they are known, and that nothing is to be done.

    They stay in the list and do not count, for `reconcile`, its repairs and the alert, until Stripe or our
    rows say something else of them: then they are open again.
    """
    from payment_worker.reconciling import breaks as table

    _change(settings, "accepted", lambda session: table.accept(session, break_ids, getpass.getuser(), reason))


@breaks.command()
@click.argument("break_ids", metavar="BREAK...", type=click.UUID, nargs=-1, required=True)
@with_settings("breaks reopen", "DATABASE_URL", changes=True)
def reopen(settings: Settings, break_ids: tuple[uuid.UUID, ...]) -> None:
    """Let breaks that were accepted count again."""
    from payment_worker.reconciling import breaks as table

    _change(settings, "open", lambda session: table.reopen(session, break_ids))


def _change(settings: Settings, word: str, change: Callable[[Session], list[Any]]) -> None:
    """Change all of the breaks or none, and tell which they are."""
    from payment_worker.reconciling.breaks import NotAccepted

    with operators_sessions(settings) as sessions:
        try:
            with sessions.begin() as session:
                told = [
                    f"{word}: {each.kind} of {each.object} {each.ref}: {each.reason}"
                    for each in change(session)
                ]
        except NotAccepted as error:
            raise click.ClickException(f"nothing was changed: {error}") from None
    for line in told:
        click.echo(line)
