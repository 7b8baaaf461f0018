"""`payment-worker review`: list what needs a person, and resolve it."""

import getpass
import uuid
from datetime import timedelta
from typing import Any

import click
import simplejson
from rich.table import Table

from payment_worker.cli.command import console, main, operators_sessions, with_settings
from shared.database import Sessions
from shared.events import rfc3339
from shared.settings import BadSettings, Settings, load_settings

LIST_MAX = 500
WAYS = ("seen", "retry", "adopt")


@main.group()
def review() -> None:
    """List and resolve what needs a person."""


@review.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="a JSON array instead of a table")
@with_settings("review list", "DATABASE_URL")
def list_cases(settings: Settings, *, as_json: bool) -> None:
    """List the operations that need a person, oldest first, and why."""
    from payment_worker.review import cases

    with operators_sessions(settings) as sessions:
        rows = [_row(each) for each in cases(sessions, LIST_MAX)]
    if as_json:
        click.echo(simplejson.dumps(rows, indent=2))
        return
    table = Table(title=f"{len(rows)} to review", title_justify="left", title_style="bold")
    for head in ("operation", "payment", "what", "since (UTC)", "reason", "gateway"):
        table.add_column(head, overflow="fold")
    for row in rows:
        what = f"{row['kind']} {row['state']}\npayment {row['status']}"
        gateway = "\n".join(filter(None, (row["gatewayRef"], row["paymentGatewayRef"])))
        ids = row["operationId"], row["paymentId"]
        table.add_row(*ids, what, row["since"] or "", row["reason"] or "", gateway)
    console().print(table)
    if len(rows) == LIST_MAX:
        click.echo(f"only the oldest {LIST_MAX} are shown")


def _row(case: Any) -> dict[str, Any]:
    operation, payment = case.operation, case.payment
    return {
        "operationId": str(operation.id),
        "paymentId": str(payment.id),
        "orderId": payment.order_id,
        "kind": str(operation.kind),
        "state": str(operation.state),
        "status": str(payment.status),
        "since": rfc3339(case.since) if case.since else None,
        "reason": case.reason,
        "gatewayRef": operation.gateway_ref or operation.target_ref,
        "paymentGatewayRef": payment.gateway_ref,
    }


@review.command()
@click.argument("operation", type=click.UUID)
@click.option(
    "--as",
    "way",
    type=click.Choice(WAYS),
    required=True,
    help="seen: nothing is to be done; adopt: record what the gateway has; retry: once it is certain that the"
    " gateway has nothing, under a new idempotency key. The last two need STRIPE_SECRET_KEY",
)
@with_settings("review resolve", "DATABASE_URL", changes=True)
def resolve(settings: Settings, operation: uuid.UUID, way: str) -> None:
    """Resolve one OPERATION; its timeline says how and by whom. Status 1 when nothing was done."""
    from payment_worker.review import NothingDone
    from shared.gateways import GatewayUnavailable

    try:
        with operators_sessions(settings) as sessions:
            click.echo(_resolve(sessions, settings, operation, way))
    except NothingDone as error:
        raise click.ClickException(f"not resolved: {error}") from None
    except GatewayUnavailable as error:
        raise click.ClickException(f"not resolved: the gateway could not be asked: {error}") from None


def _resolve(sessions: Sessions, settings: Settings, operation_id: uuid.UUID, way: str) -> str:
    from payment_worker import review as reviewing

    actor = getpass.getuser()
    if way == "seen":
        reviewing.accept(sessions, operation_id, actor)
        return "resolved: seen"
    gateway = _gateway()
    if way == "adopt":
        return _adopted(reviewing.adopt(sessions, gateway, operation_id, actor))
    apart = timedelta(seconds=settings.verify_absence_s)
    done = reviewing.retry(sessions, gateway, operation_id, actor, apart)
    if done is None:
        wait_s = round(settings.verify_absence_s)
        return f"absent at a first look; after a second, {wait_s} s from now, it is tried again by itself"
    if isinstance(done, str):
        return f"verified absent: it is tried again now, under the key {done}"
    return f"not tried again, for the gateway has it; {_adopted(done)}"


def _adopted(seen: list[Any]) -> str:
    return f"adopted: {', '.join(type(each).__name__.lower() for each in seen)}"


def _gateway() -> Any:
    """The gateway. The few calls of an operator ask neither for the circuit breaker nor for the budget."""
    from shared.gateways.stripe import StripeGateway

    try:
        settings = load_settings(("STRIPE_SECRET_KEY",))
    except BadSettings as error:
        raise click.ClickException(str(error)) from None
    return StripeGateway(settings.stripe_secret_key, settings.stripe_api_url, pool_size=1)
