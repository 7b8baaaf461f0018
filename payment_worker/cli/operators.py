"""What an operator does at three in the morning: pause, resume, show."""

import getpass

import click

from payment_worker.cli.command import console, main, operators_sessions, with_settings
from payment_worker.cli.story import find, tables
from shared.commands.pause import pause as pause_kinds
from shared.commands.pause import paused
from shared.commands.pause import resume as resume_kinds
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
@with_settings("resume", "DATABASE_URL", changes=True)
def resume(settings: Settings, kind: str | None) -> None:
    """Let what was paused go on; recovery dispatches what has become due within seconds."""
    with operators_sessions(settings) as sessions:
        resume_kinds(sessions, _chosen(kind))
        log.warning("resumed", kinds=[str(each) for each in _chosen(kind)], actor=getpass.getuser())
        _tell(sessions)


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
