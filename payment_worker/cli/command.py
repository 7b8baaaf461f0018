"""The command group, and how a subcommand gets its settings and logs."""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console

from shared.commands import audit
from shared.database import Sessions, connect, make_sessions
from shared.sealing import Sealer
from shared.settings import BadSettings, Settings, load_settings
from shared.telemetry import configure_logging, log_context
from shared.tracing import configure_tracing

PIPED_COLUMNS = 240  # the widest table with its ids whole


class Moment(click.ParamType[datetime]):
    """A point in time as ISO 8601 writes it; in UTC unless it says otherwise."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it, or fail with what is expected."""
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time like 2026-11-20T08:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.group()
def main() -> None:
    """Carry out what payments need at the gateway, and announce the outcomes."""


def console() -> Console:
    """Where tables go. In a pipe or a file no id is broken over lines, so that it can be searched for."""
    made = Console()
    if not made.is_terminal:
        made.width = max(made.width, PIPED_COLUMNS)
    return made


@contextmanager
def operators_sessions(settings: Settings) -> Iterator[Sessions]:
    """Sessions for one command of an operator, on one connection that ends with it."""
    sealer = Sealer.of(settings) if settings.data_key else None
    engine = connect(settings.database_url, pool_size=1, application="payment-operator", sealer=sealer)
    try:
        yield make_sessions(engine)
    finally:
        engine.dispose()


@contextmanager
def audited(settings: Settings, name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Note who gives this command before it is carried out, and how it ended; a dry run leaves no trace."""
    if options.get("dry_run"):
        yield
        return
    given = {key: _shown(value) for key, value in options.items() if value not in (None, (), False)}
    act = audit.by_command(f"payment-worker {name}", given)
    with operators_sessions(settings) as sessions, log_context(correlation_id=act.correlation_id):
        entry = audit.note(sessions, act)
        outcome = "failed"
        try:
            yield
            outcome = "done"
        except click.ClickException as error:
            outcome = f"failed: {error.message}"
            raise
        except SystemExit as end:
            outcome = f"ended with status {end.code}" if end.code else "done"
            raise
        finally:
            audit.complete(sessions, entry, outcome)


def _shown(value: Any) -> Any:
    return [str(each) for each in value] if isinstance(value, tuple) else str(value)


def with_settings(
    name: str, *needs: str, changes: bool | str = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a subcommand the settings and set up its logs; a bad setting ends it at once with status 2.

    One that `changes` something, always or with the option of that name, leaves an entry in the audit trail,
    for which it needs DATABASE_URL.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def run(**options: object) -> None:
            try:
                settings = load_settings(needs)
            except BadSettings as error:
                click.echo(f"payment-worker {name} does not start:\n{error}", err=True)
                sys.exit(2)
            configure_logging(name, settings.log_level, settings.log_format)
            configure_tracing(name)
            noted = options.get(changes) if isinstance(changes, str) else changes
            with audited(settings, name, options) if noted else nullcontext():
                body(settings, **options)

        run.changes = changes  # type: ignore[attr-defined]
        return run

    return decorate
