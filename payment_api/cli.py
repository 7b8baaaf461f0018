"""The operators' command `payment-api`."""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NoReturn

import click
import simplejson

from payment_api.errors import error_table
from payment_api.principal import Principal, Role
from shared.settings import API_NEEDS, BadSettings, Settings, load_settings, settings_table
from shared.settings_checks import LIVE_KEYS
from shared.telemetry import configure_logging, get_logger

log = get_logger(__name__)

LONGEST_TTL_S = 30 * 86_400
MIGRATE_WAIT_S = 60  # a database that starts beside us, or a table that somebody holds for long
MIGRATE_RETRY_FIRST_S = 0.2
MIGRATE_RETRY_LAST_S = 5.0


@click.group()
def main() -> None:
    """Accept payments and answer how they stand."""


def _settings(command: str, *needs: str) -> Settings:
    try:
        return load_settings(needs)
    except BadSettings as error:
        click.echo(f"payment-api {command} does not start:\n{error}", err=True)
        sys.exit(2)


@main.command()
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(min=0),
    default=MIGRATE_WAIT_S,
    show_default=True,
    help="seconds to try again while the database is away or busy",
)
def migrate(wait_s: int) -> None:
    """Bring the database's schema up to date."""
    settings = _settings("migrate", "DATABASE_URL")
    from shared.migrations import upgrade  # first: Alembic logs each of its plugins when it is imported

    configure_logging("migrate", settings.log_level, settings.log_format)
    _insist(lambda: upgrade(settings.database_url), wait_s)
    log.info("the schema is up to date")


def _insist(upgrade: Callable[[], None], wait_s: float) -> None:
    """Migrate, and wait out an outage; what a try has begun the next one completes. Exits with 1 at last."""
    from alembic.util import CommandError

    from shared.database import is_database_down, reason_of

    until, retry_s = time.monotonic() + wait_s, MIGRATE_RETRY_FIRST_S
    while True:
        try:
            return upgrade()
        except (TimeoutError, CommandError) as error:  # another goes on; a schema of a later release
            log.error("not migrated", reason=str(error))  # noqa: TRY400 - a trace would say no more
            sys.exit(1)
        except Exception as error:
            if not is_database_down(error):
                raise
            reason, left_s = reason_of(error), until - time.monotonic()
            if left_s <= 0:
                why = "not migrated: the database is away or busy"
                log.error(why, reason=reason, waited_s=wait_s)  # noqa: TRY400 - as above
                sys.exit(1)
            retry_s = min(retry_s, left_s)
            log.warning(
                "the database is away or busy; trying again", reason=reason, retry_s=round(retry_s, 1)
            )
            time.sleep(retry_s)
            retry_s = min(MIGRATE_RETRY_LAST_S, retry_s * 2)


@main.command()
def serve() -> None:
    """Serve HTTP until SIGTERM; running requests are finished first."""
    settings = _settings("serve", *API_NEEDS)
    configure_logging("api", settings.log_level, settings.log_format)
    # Before the first metric is made: the server's processes write their figures into this folder, so that
    # any of them can answer for all.
    with tempfile.TemporaryDirectory(prefix="payment-api-metrics-") as folder:
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)
        from payment_api.server import serve_forever

        serve_forever(settings)


@main.command()
@click.option("--sub", "subject", required=True, help="who the token speaks for; a customer's own customerId")
@click.option(
    "--role", type=click.Choice([str(each) for each in Role]), default="customer", show_default=True
)
@click.option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(1, LONGEST_TTL_S),
    default=3600,
    show_default=True,
    help="seconds that it is good for",
)
@click.option(
    "--scope", default="", help="what it may be used for, by blanks; without it all that the role may"
)
def token(subject: str, role: str, ttl_s: int, scope: str) -> None:
    """Print a bearer token to try the API with, signed with JWT_SECRET; not beside a live Stripe key."""
    settings = _settings("token")
    if settings.stripe_secret_key.startswith(LIVE_KEYS):
        _refuse("token", "STRIPE_SECRET_KEY: a live key is set; tokens for it come from its issuer")
    if not settings.jwt_secret:
        _refuse("token", "JWT_SECRET: is not set (what bearer tokens are signed with)")
    from payment_api.minting import mint
    from payment_api.services import make_tokens
    from payment_api.tokens import BadToken

    made = mint(settings, subject, Role(role), ttl_s=ttl_s, scope=scope)
    try:
        make_tokens(settings).read(f"Bearer {made}")
    except BadToken as error:
        _refuse("token", f"the API would not take it: {error}")
    click.echo(made)


@main.command()
def revoke() -> None:
    """Refuse a bearer token from now on; it is read from standard input, not from the command line."""
    settings = _settings("revoke", "DATABASE_URL")
    from payment_api.jwks import KeysUnavailable
    from payment_api.services import make_tokens
    from payment_api.tokens import BadToken

    text = sys.stdin.read().strip()
    try:
        caller = make_tokens(settings).read(f"Bearer {text}")
    except BadToken as error:
        _refuse("revoke", f"the API would not take this token anyway: {error}")
    except KeysUnavailable:
        _refuse("revoke", "the issuer's keys cannot be had, so nothing is known of this token")
    _revoke(settings, caller)
    click.echo(f"revoked: a token of {caller.id}, good until {caller.expires_at:%F %T} UTC")


def _revoke(settings: Settings, caller: Principal) -> None:
    from shared.commands import audit, revocation
    from shared.database import connect, make_sessions

    assert caller.token_id and caller.expires_at  # noqa: S101, PT018 - whoever has a token has both
    engine = connect(settings.database_url, pool_size=1, application="payment-operator")
    try:
        sessions = make_sessions(engine)
        entry = audit.note(sessions, audit.by_command("payment-api revoke", {"sub": caller.id}))
        revocation.revoke(sessions, caller.token_id, caller.expires_at)
        audit.complete(sessions, entry, "done")
    finally:
        engine.dispose()


def _refuse(command: str, why: str) -> NoReturn:
    click.echo(f"payment-api {command}: {why}", err=True)
    sys.exit(2)


@main.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from payment_api.app import create_app
    from payment_api.services import make_services

    configure_logging("openapi", "error", "auto")
    # The document needs no connection, only addresses that are never used.
    nowhere = Settings(database_url="postgresql://nowhere/none", redis_url="redis://nowhere")
    app = create_app(make_services(nowhere))
    with app.test_client() as client:
        click.echo(simplejson.dumps(client.get("/openapi.json").get_json(), indent=2, use_decimal=True))


@main.command()
@click.argument("name", type=click.Choice(["errors", "settings"]))
def table(name: str) -> None:
    """Print a table of the README, in Markdown."""
    click.echo(markdown_table(name))


def markdown_table(name: str) -> str:
    """The table `errors` or `settings`, as the README shows it."""
    if name == "errors":
        head: tuple[str, ...] = ("errorCode", "status", "meaning", "retry helps")
        rows: list[tuple[object, ...]] = [(f"`{code}`", *rest) for code, *rest in error_table()]
    else:
        head = ("variable", "default", "meaning")
        rows = [
            (f"`{name}`", f"`{default}`" if default else "", text) for name, default, text in settings_table()
        ]
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
