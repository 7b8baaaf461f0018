"""What an operator does at three in the morning: pause, resume, show."""

import getpass
from datetime import UTC, datetime

import click

from payment_worker.cli.command import Moment, console, main, operators_sessions, with_settings
from payment_worker.cli.story import find, tables
from shared.commands.pause import pause as pause_kinds
from shared.commands.pause import paused
from shared.commands.pause import resume as resume_kinds
from shared.commands.restore import StillRestored, mark_restored, way_out
from shared.database import Sessions, reading
from shared.payments import OperationKind
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

# A hold is halted as a charge is. Letting go of a hold takes no money and frees the customer's: it goes on
# while captures are halted, unless it is halted itself.
KINDS: dict[str, tuple[OperationKind, ...]] = {
    "charge": (OperationKind.CHARGE, OperationKind.AUTHORIZE),
    "capture": (OperationKind.CAPTURE,),
    "cancel": (OperationKind.CANCEL,),
    "refund": (OperationKind.REFUND,),
}
_kind = click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    help="only this kind; without it all of them. charge: holds, too; capture: cancels of holds go on",
)


def _chosen(kind: str | None) -> list[OperationKind]:
    return [each for name in ([kind] if kind else KINDS) for each in KINDS[name]]


@main.command()
@_kind
@with_settings("pause", "DATABASE_URL", changes=True)
def pause(settings: Settings, kind: str | None) -> None:
    """Let nothing new reach the gateway; commands are still taken, and what is in flight ends."""
    with operators_sessions(settings) as sessions:
        pause_kinds(sessions, _chosen(kind), getpass.getuser())
        log.warning("paused", kinds=[str(each) for each in _chosen(kind)], actor=getpass.getuser())
        _tell(sessions)


@main.command()
@_kind
@click.option("--force", is_flag=True, help="also after a restore whose lost payments are not rebuilt")
@with_settings("resume", "DATABASE_URL", changes=True)
def resume(settings: Settings, *, kind: str | None, force: bool) -> None:
    """Let what was paused go on; recovery dispatches what has become due within seconds.

    Refused after a restore until `reconcile --heal --apply` has rebuilt what was lost.
    """
    with operators_sessions(settings) as sessions:
        try:
            resume_kinds(sessions, _chosen(kind), getpass.getuser(), force=force)
        except StillRestored as error:
            raise click.ClickException(
                f"not resumed: {error}; or --force, and orders may be charged twice"
            ) from None
        log.warning("resumed", kinds=[str(each) for each in _chosen(kind)], actor=getpass.getuser())
        _tell(sessions)


@main.command()
@click.option(
    "--backup-taken-at",
    type=Moment(),
    required=True,
    help="when the backup was begun that the database was restored from, e.g. 2026-11-20T08:00:00Z",
)
@with_settings("restored", "DATABASE_URL", changes=True)
def restored(settings: Settings, backup_taken_at: datetime) -> None:
    """Mark the database as restored: nothing reaches the gateway until what it has lost is rebuilt.

    To be run before any process of the service is started on it.
    """
    if backup_taken_at > datetime.now(UTC):
        raise click.BadParameter("is in the future", param_hint="--backup-taken-at")
    with operators_sessions(settings) as sessions:
        mark = mark_restored(sessions, backup_taken_at, getpass.getuser())
        log.warning("restored: nothing is sent to the gateway", actor=mark.actor, way_out=way_out(mark))
        _tell(sessions)
        click.echo(f"next: {way_out(mark)}")


def _tell(sessions: Sessions) -> None:
    kinds = ", ".join(paused(sessions)) or "nothing"
    click.echo(f"paused now: {kinds}")


@main.command()
@click.argument("payment")
@with_settings("show", "DATABASE_URL")
def show(settings: Settings, payment: str) -> None:
    """Show everything about a PAYMENT: its id, or its order's, cart's, operation's, refund's or gateway's."""
    to = console()
    with operators_sessions(settings) as sessions:
        halted = paused(sessions)
        with reading(sessions) as session:
            found = find(session, payment)
            if not found:
                raise click.ClickException(f"no payment, order, cart or gateway id {payment}")
            for each in found:
                for table in tables(session, each, halted):
                    to.print(table)
