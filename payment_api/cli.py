"""The operators' command `payment-api`."""

import os
import sys
import tempfile

import click
import simplejson

from payment_api.errors import error_table
from shared.settings import API_NEEDS, BadSettings, Settings, load_settings, settings_table
from shared.telemetry import configure_logging, get_logger

log = get_logger(__name__)


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
def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = _settings("migrate", "DATABASE_URL")
    from shared.migrations import upgrade

    configure_logging("migrate", settings.log_level, settings.log_format)
    upgrade(settings.database_url)
    log.info("the schema is up to date")


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
