"""`payment-worker evidence`: what was said to the gateway about a payment, and what it answered."""

import sys

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from payment_worker.cli.command import main, operators_sessions, with_settings
from payment_worker.cli.story import find
from shared.database import reading
from shared.documents import render_json
from shared.models import Payment, TimelineEntry
from shared.settings import Settings

NOTHING = 1


@main.command()
@click.argument("payment")
@with_settings("evidence", "DATABASE_URL", "DATA_KEY", "EVIDENCE_URL")
def evidence(settings: Settings, payment: str) -> None:
    """Show the redacted exchanges of each attempt of PAYMENT, by any of its ids, as JSON lines."""
    from payment_worker.evidence import store_of
    from shared.evidence import NoEvidence
    from shared.sealing import CannotOpen

    store = store_of(settings)
    assert store is not None  # noqa: S101 - the command does not start without EVIDENCE_URL
    with operators_sessions(settings) as sessions, reading(sessions) as session:
        found = find(session, payment)
        references = _references(session, found) if found else []
    if not references:
        click.echo(f"{payment}: no such payment, or nothing was kept of it", err=True)
        sys.exit(NOTHING)
    for reference in references:
        try:
            click.echo(render_json({"evidence": reference, **store.read(reference)}))
        except (NoEvidence, CannotOpen, OSError) as error:
            click.echo(f"{reference}: not there ({type(error).__name__})", err=True)


def _references(session: Session, payments: list[Payment]) -> list[str]:
    """Where the evidence of these payments is, in the order in which it came about."""
    ids = [each.id for each in payments]
    reference = TimelineEntry.detail["evidence"].astext
    query = select(reference).where(TimelineEntry.payment_id.in_(ids), reference.is_not(None))
    return list(session.scalars(query.order_by(TimelineEntry.payment_id, TimelineEntry.sequence)))
