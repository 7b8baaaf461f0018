"""What an operator does about webhooks that found no payment of ours, or could not be processed."""

import click
from rich.table import Table

from payment_worker import inbox
from payment_worker.cli.command import console, main, with_settings
from shared.database import connect, make_sessions
from shared.models import InboxState
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

STATES = (InboxState.UNMATCHED, InboxState.FAILED)
_states = click.Choice([str(each) for each in STATES])


@main.group()
def webhooks() -> None:
    """Webhooks that wait for a person."""


@webhooks.command(name="list")
@click.option("--state", type=_states, help="only these; without it both")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@with_settings("webhooks list", "DATABASE_URL")
def list_webhooks(settings: Settings, state: str | None, limit: int) -> None:
    """List webhooks that found no payment (unmatched) or were given up (failed), newest first."""
    sessions = make_sessions(connect(settings.database_url, pool_size=1, application="payment-operator"))
    table = Table()
    for head in ("id", "type", "object", "state", "received (UTC)", "attempts", "error"):
        table.add_column(head, overflow="fold")
    for each in [InboxState(state)] if state else STATES:
        for row in inbox.listed(sessions, each, limit):
            table.add_row(
                row.message_id,
                row.type,
                str((row.payload or {}).get("id", "")),
                str(row.state),
                f"{row.received_at:%F %T}",
                str(row.attempts),
                row.error or "",
            )
    console().print(table if table.row_count else "nothing waits for a person")


@webhooks.command()
@click.argument("event_ids", nargs=-1)
@click.option("--state", type=_states, help="all of these")
@with_settings("webhooks replay", "DATABASE_URL", changes=True)
def replay(settings: Settings, event_ids: tuple[str, ...], state: str | None) -> None:
    """Process webhooks again, by EVENT_IDS or all in one state, as if they had just come."""
    if bool(event_ids) == bool(state):
        raise click.UsageError("give either event ids or --state")
    sessions = make_sessions(connect(settings.database_url, pool_size=1, application="payment-operator"))
    due = inbox.replay(sessions, event_ids, InboxState(state) if state else None)
    click.echo(f"due again: {', '.join(due) or 'nothing'}")
    if unknown := sorted({*event_ids} - {*due}):
        raise click.ClickException(f"no such webhook: {', '.join(unknown)}")
