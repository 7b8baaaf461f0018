"""Structured logs: one JSON object a line, pretty on a terminal, never with a card number in it."""

import logging
import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from shared.card_numbers import redact

Logger = structlog.stdlib.BoundLogger


def configure_logging(process: str, level: str, log_format: str) -> None:
    """Send every log line of this process, libraries' too, to standard output in one form."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    pretty = log_format == "pretty" or (log_format == "auto" and sys.stdout.isatty())
    render: list[Any] = (
        [
            structlog.processors.format_exc_info,
            _redact,
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()),
        ]
        if pretty
        else [structlog.processors.format_exc_info, _redact, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(process=process)
    logging.captureWarnings(capture=True)
    # Celery would add two lines to each task; the tasks say themselves what they did.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The SDK logs each request's parameters at info.
    logging.getLogger("stripe").setLevel(logging.WARNING)


def get_logger(name: str) -> Logger:
    """The logger of one module."""
    logger: Logger = structlog.get_logger(name)
    return logger


def log_context(**values: object) -> AbstractContextManager[None]:
    """Put these values on every log line within the block; None is left out."""
    return bound_contextvars(**{name: str(value) for name, value in values.items() if value is not None})


def _redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in line.items():
        if isinstance(value, str) and len(value) > 12:  # noqa: PLR2004 - shorter than any card number
            line[name] = redact(value)
    return line
