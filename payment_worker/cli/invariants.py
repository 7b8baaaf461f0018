"""`payment-worker invariants`: check now that every payment is whole."""

import sys
import uuid
from collections import defaultdict

import click
import simplejson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy import func, select

from payment_worker.cli.command import console, main, operators_sessions, with_settings
from payment_worker.invariants import INVARIANTS, Broken
from shared.database import Sessions, reading
from shared.settings import Settings

SHOWN = 20  # ids of each invariant, in the table; --json has them all


@main.command()
@click.option("--payment", type=click.UUID, multiple=True, help="only these payments; without it all")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table")
@with_settings("invariants", "DATABASE_URL")
def invariants(settings: Settings, *, payment: tuple[uuid.UUID, ...], as_json: bool) -> None:
    """Check every invariant of every payment now; it only reads. Status 1 when one is broken."""
    with operators_sessions(settings) as sessions:
        looked_at, found = _check(sessions, payment)
    by_name: dict[str, list[str]] = defaultdict(list)
    for name, payment_id in found:
        by_name[name].append(str(payment_id))
    if as_json:
        violations = {name: by_name.get(name, []) for name in INVARIANTS}
        click.echo(simplejson.dumps({"payments": looked_at, "violations": violations}, indent=2))
    else:
        table = Table(title=f"{looked_at} payments", title_justify="left", title_style="bold")
        table.add_column("invariant")
        table.add_column("violations", justify="right")
        table.add_column("payments", overflow="fold")
        for name in INVARIANTS:
            ids = by_name.get(name, [])
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            table.add_row(name, str(len(ids)), " ".join(ids[:SHOWN]) + more)
        console().print(table)
    sys.exit(1 if found else 0)


def _check(sessions: Sessions, only: tuple[uuid.UUID, ...]) -> tuple[int, list[Broken]]:
    from payment_worker.auditing import every_payment
    from payment_worker.invariants import broken
    from shared.models import Payment

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    found: list[Broken] = []
    looked_at = 0
    with reading(sessions) as session, Progress(*columns, console=Console(stderr=True)) as bar:
        total = len(only) or session.scalars(select(func.count()).select_from(Payment)).one()
        task = bar.add_task("payments", total=total)
        for batch in [list(only)] if only else every_payment(session):
            found += broken(session.connection(), batch)
            looked_at += len(batch)
            bar.update(task, completed=looked_at)
    return looked_at, found
