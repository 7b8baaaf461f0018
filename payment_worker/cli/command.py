"""The command group, and how a subcommand gets its settings and logs."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console

from shared.database import Sessions, connect, make_sessions
from shared.settings import BadSettings, Settings, load_settings
from shared.telemetry import configure_logging
from shared.tracing import configure_tracing

PIPED_COLUMNS = 240  # the widest table with its ids whole


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
    engine = connect(settings.database_url, pool_size=1, application="payment-operator")
    try:
        yield make_sessions(engine)
    finally:
        engine.dispose()


def with_settings(name: str, *needs: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a subcommand the settings and set up its logs; a bad setting ends it at once with status 2."""

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
            body(settings, **options)

        return run

    return decorate
