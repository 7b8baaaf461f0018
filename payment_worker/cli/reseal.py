"""`payment-worker reseal`: bring everything that is stored sealed under the current key."""

import sys

import click

from payment_worker.cli.command import console, main, operators_sessions, with_settings
from shared.settings import Settings

CANNOT = 1


@main.command()
@click.option("--dry-run", is_flag=True, help="only count")
@with_settings("reseal", "DATABASE_URL", "DATA_KEY", changes=True)
def reseal(settings: Settings, *, dry_run: bool) -> None:
    """Seal anew what is under DATA_KEY_PREVIOUS, and what earlier releases stored readable.

    Afterwards DATA_KEY_PREVIOUS is needed for nothing. It may be interrupted, and runs beside the service.
    """
    from payment_worker.evidence import store_of
    from payment_worker.reseal import reseal as work
    from shared.sealing import CannotOpen, Sealer

    counts: dict[str, int] = {}
    with operators_sessions(settings) as sessions, console().status("looking") as status:

        def seen(table: str, count: int) -> None:
            counts[table] = count
            status.update(f"{table}: {count}")

        try:
            total = work(sessions, Sealer.of(settings), seen, dry_run=dry_run)
            store = None if dry_run else store_of(settings)
            for count, _ in enumerate(store.reseal() if store else (), start=1):
                seen("evidence", count)
        except CannotOpen as error:
            click.echo(f"stopped: {error}", err=True)
            sys.exit(CANNOT)
    for table, count in counts.items():
        click.echo(f"{table}: {count}")
    done = "would be sealed anew" if dry_run else "sealed anew"
    click.echo(f"{total} rows {done}")
