"""What an operator does at three in the morning: pause, resume, show."""

import getpass
import uuid
from contextlib import suppress
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.orm import Session

from payment_worker.cli.command import main, with_settings
from shared.commands.pause import pause as pause_kinds
from shared.commands.pause import paused
from shared.commands.pause import resume as resume_kinds
from shared.database import Sessions, connect, make_sessions
from shared.models import Operation, Payment, TimelineEntry
from shared.money import Money
from shared.payments import OperationKind
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

KINDS = ("charge", "refund", "capture")
_kind = click.option("--kind", type=click.Choice(KINDS), help="only this kind; without it all of them")


def _sessions(settings: Settings) -> Sessions:
    return make_sessions(connect(settings.database_url, pool_size=1, application="payment-operator"))


def _chosen(kind: str | None) -> list[OperationKind]:
    return [OperationKind(each) for each in ([kind] if kind else KINDS)]


@main.command()
@_kind
@with_settings("pause", "DATABASE_URL")
def pause(settings: Settings, kind: str | None) -> None:
    """Let nothing new reach the gateway; commands are still taken, and what is in flight ends."""
    sessions = _sessions(settings)
    pause_kinds(sessions, _chosen(kind), getpass.getuser())
    log.warning("paused", kinds=[str(each) for each in _chosen(kind)], actor=getpass.getuser())
    _tell(sessions)


@main.command()
@_kind
@with_settings("resume", "DATABASE_URL")
def resume(settings: Settings, kind: str | None) -> None:
    """Let what was paused go on; recovery dispatches what has become due within seconds."""
    sessions = _sessions(settings)
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
    """Show everything about a PAYMENT: its id, or its order's, cart's or gateway's."""
    console = Console()
    with _sessions(settings)() as session:
        found = _find(session, payment)
        if not found:
            raise click.ClickException(f"no payment, order, cart or gateway id {payment}")
        for each in found:
            console.print(_facts(each))
            console.print(_operations(session, each))
            console.print(_timeline(session, each))


def _find(session: Session, text: str) -> list[Payment]:
    with suppress(ValueError):
        if payment := session.get(Payment, uuid.UUID(text)):
            return [payment]
    # The last two have no index of their own: an operator may wait a little.
    for column in (Payment.order_id, Payment.gateway_ref, Payment.cart_id, Payment.transaction_id):
        if found := list(session.scalars(select(Payment).where(column == text).order_by(Payment.id))):
            return found
    return []


def _grid(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _facts(payment: Payment) -> Table:
    table = _grid(f"Payment {payment.id}", "what", "value")
    captured = Money(payment.captured_minor, payment.currency)
    facts: dict[str, Any] = {
        "status": payment.status,
        "amount": f"{Money(payment.amount_minor, payment.currency)}, {captured} taken",
        "order": payment.order_id,
        "customer": payment.customer_id,
        "gateway": payment.gateway_ref,
        "transaction": payment.transaction_id,
        "failure": payment.error_code and f"{payment.error_code}: {payment.error_message}",
        "simulated": "yes, no money moved" if payment.is_simulated else None,
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, str(value))
    return table


def _operations(session: Session, payment: Payment) -> Table:
    table = _grid("Operations", "id", "kind", "state", "attempts", "gateway", "next attempt", "remarks")
    for each in session.scalars(select(Operation).where(Operation.payment_id == payment.id)):
        remarks = ["needs review"] if each.needs_review else []
        remarks += [f"in doubt since {each.doubt_since:%F %T}"] if each.doubt_since else []
        due = f"{each.next_attempt_at:%F %T}" if each.next_attempt_at else ""
        table.add_row(
            str(each.id),
            each.kind,
            each.state,
            str(each.attempt),
            each.gateway_ref or "",
            due,
            ", ".join(remarks),
        )
    return table


def _timeline(session: Session, payment: Payment) -> Table:
    table = _grid("Timeline", "#", "at (UTC)", "by", "what", "status", "event", "detail")
    query = select(TimelineEntry).where(TimelineEntry.payment_id == payment.id)
    for each in session.scalars(query.order_by(TimelineEntry.sequence)):
        change = f"{each.from_status or ''} -> {each.to_status}".strip(" ->") if each.to_status else ""
        event = f"{each.announced_type} {each.announced_id}" if each.announced_type else ""
        detail = ", ".join(f"{name} {value}" for name, value in (each.detail or {}).items())
        table.add_row(str(each.sequence), f"{each.at:%F %T}", each.actor, each.event, change, event, detail)
    return table
