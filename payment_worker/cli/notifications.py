"""`payment-worker notifications`: who is told of payments, how that goes, and telling them again."""

import uuid
from datetime import datetime
from typing import Any

import click
from rich.table import Table

from payment_worker.cli.command import Moment, console, main, operators_sessions, with_settings
from shared.commands import deliveries
from shared.commands.deliveries import DeliveryNotFound, TooManyDeliveries, Wanted
from shared.commands.endpoints import EndpointNotFound, find_endpoint, list_endpoints
from shared.database import Sessions, reading
from shared.models_notifications import DeliveryState
from shared.notifications import ORDER_SERVICE
from shared.settings import Settings

MAX_ENDPOINTS = 10_000
ORDERS = "orders"
_states = click.Choice([str(each) for each in DeliveryState])


class Receiver(click.ParamType[uuid.UUID]):
    """An endpoint's id, or `orders` for the order service."""

    name = "endpoint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> uuid.UUID:
        """Read it, or fail with what is expected."""
        if value == ORDERS:
            return ORDER_SERVICE
        try:
            return uuid.UUID(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither an endpoint's id nor `{ORDERS}`", param, ctx)


@main.group()
def notifications() -> None:
    """Webhooks to subscribers, and callbacks to the order service."""


@notifications.command()
@with_settings("notifications endpoints", "DATABASE_URL")
def endpoints(settings: Settings) -> None:
    """List the subscribers' endpoints, and since when one has failed or why it is disabled."""
    table = Table()
    for head in ("endpoint", "owner", "url", "events", "state", "failing since (UTC)"):
        table.add_column(head, overflow="fold")
    with operators_sessions(settings) as sessions, reading(sessions) as session:
        for each in list_endpoints(session, None, MAX_ENDPOINTS):
            why = f"{each.state}\n{each.disabled_reason}" if each.disabled_reason else each.state
            since = f"{each.failing_since:%F %T}" if each.failing_since else ""
            events = ", ".join(each.event_types or ["all"])
            table.add_row(str(each.id), each.owner, each.url, events, why, since)
    console().print(table if table.row_count else "nobody has registered an endpoint")


@notifications.command(name="list")
@click.argument("endpoint", type=Receiver())
@click.option("--state", type=_states, help="only these; without it all")
@click.option("--payment", type=click.UUID, help="only of this payment")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@with_settings("notifications list", "DATABASE_URL")
def list_deliveries(
    settings: Settings, *, endpoint: uuid.UUID, state: str | None, payment: uuid.UUID | None, limit: int
) -> None:
    """List the deliveries to an ENDPOINT, by its id or `orders`, newest event first."""
    table = Table()
    for head in ("event", "type", "payment", "state", "attempts", "next (UTC)", "last answer"):
        table.add_column(head, overflow="fold")
    wanted = Wanted(state=state, payment_id=payment, limit=limit)
    with operators_sessions(settings) as sessions, reading(sessions) as session:
        for each in deliveries.list_deliveries(session, endpoint, wanted):
            due = f"{each.next_attempt_at:%F %T}" if each.next_attempt_at else ""
            said = each.last_error or (str(each.last_status) if each.last_status else "")
            ids = str(each.event_id), each.type, str(each.payment_id)
            table.add_row(*ids, each.state, str(each.attempts), due, said)
    console().print(table if table.row_count else "no such deliveries")


@notifications.command()
@click.argument("endpoint", type=Receiver())
@click.argument("event_ids", nargs=-1, type=click.UUID)
@click.option("--since", type=Moment(), help="everything from this time on, also what was never sent")
@click.option("--until", type=Moment(), help="with --since: before this time; without it: now")
@with_settings("notifications resend", "DATABASE_URL", changes=True)
def resend(
    settings: Settings,
    *,
    endpoint: uuid.UUID,
    event_ids: tuple[uuid.UUID, ...],
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Deliver events to an ENDPOINT again, by EVENT_IDS or all --since a time, each under its own id."""
    if bool(event_ids) == bool(since):
        raise click.UsageError("give either event ids or --since")
    with operators_sessions(settings) as sessions:
        try:
            count = _resend(sessions, endpoint, event_ids, since, until)
        except (DeliveryNotFound, EndpointNotFound, TooManyDeliveries) as error:
            raise click.ClickException(str(error)) from None
    click.echo(f"to be delivered again: {count}")


def _resend(
    sessions: Sessions,
    endpoint: uuid.UUID,
    event_ids: tuple[uuid.UUID, ...],
    since: datetime | None,
    until: datetime | None,
) -> int:
    for event_id in event_ids:
        deliveries.send_again(sessions, endpoint, event_id)
    if since is None:
        return len(event_ids)
    if endpoint == ORDER_SERVICE:
        raise click.UsageError(f"--since is for endpoints; of `{ORDERS}`, name the events")
    with reading(sessions) as session:
        types = find_endpoint(session, endpoint, None).event_types
    return deliveries.send_all_again(sessions, endpoint, types, since, until)
