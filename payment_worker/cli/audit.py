"""`payment-worker audit`: what operators have changed, over HTTP and by commands."""

from datetime import datetime
from typing import Any

import click
import simplejson
from rich.table import Table

from payment_worker.cli.command import Moment, console, main, operators_sessions, with_settings
from shared.commands.audit import entries
from shared.events import rfc3339
from shared.models_access import AuditEntry
from shared.settings import Settings

BROKE_OFF = "broke off"


@main.group()
def audit() -> None:
    """What operators have changed."""


@audit.command(name="list")
@click.option("--actor", help="only what this one did: a token's sub, or a login name")
@click.option("--since", type=Moment(), help="from this time on, e.g. 2026-11-20T08:00:00Z")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="a JSON array instead of a table")
@with_settings("audit list", "DATABASE_URL")
def list_entries(
    settings: Settings, *, actor: str | None, since: datetime | None, limit: int, as_json: bool
) -> None:
    """List who changed what, when, on what, from where and how it ended; the newest first."""
    with operators_sessions(settings) as sessions:
        rows = [_row(each) for each in entries(sessions, actor=actor, since=since, limit=limit)]
    if as_json:
        click.echo(simplejson.dumps(rows, indent=2))
        return
    table = Table()
    for head in ("when (UTC)", "who", "from", "what", "on", "outcome", "correlation id"):
        table.add_column(head, overflow="fold")
    for row in rows:
        on = " ".join(f"{name}={value}" for name, value in row["subject"].items())
        table.add_row(
            row["at"], row["actor"], row["cameFrom"], row["action"], on, row["outcome"], row["correlationId"]
        )
    console().print(table if rows else "nothing was changed")


def _row(entry: AuditEntry) -> dict[str, Any]:
    return {
        "at": rfc3339(entry.at),
        "actor": entry.actor,
        "channel": entry.channel,
        "cameFrom": entry.came_from,
        "action": entry.action,
        "subject": entry.subject,
        "outcome": entry.outcome or BROKE_OFF,
        "correlationId": entry.correlation_id,
    }
