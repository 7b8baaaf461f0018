"""Structured logs: one JSON object a line, pretty on a terminal, never with a card number in it."""

import logging
import os
import sys
import threading
from collections.abc import MutableMapping
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from shared.card_numbers import redact

Logger = structlog.stdlib.BoundLogger


def configure_logging(process: str, level: str, log_format: str) -> None:
    """Send every log line of this process, libraries' too, to standard output in one form.

    What nobody catches is such a line as well; a person who has sent the output elsewhere sees it, too.
    """

    def name_process(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # Not bound to the context, which is a thread's own.
        line.setdefault("process", process)
        return line

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        name_process,
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
    logging.captureWarnings(capture=True)
    # A test's runner has hooks of its own.
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _log_what_ended_us
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _log_what_ended_a_thread
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


def say_at_once(logger_name: str, text: str) -> None:
    """Log from a handler of a signal, which may have interrupted whoever holds a lock or writes a line."""
    logger = logging.getLogger(logger_name)
    if not logger.isEnabledFor(logging.INFO):
        return
    record = logger.makeRecord(logger_name, logging.INFO, "", 0, text, (), None)
    for handler in logging.getLogger().handlers:
        with suppress(OSError, ValueError):  # nobody reads any more
            os.write(sys.stdout.fileno(), f"{handler.format(record)}\n".encode())


def _log_what_ended_us(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return  # somebody wanted it
    logging.getLogger(__name__).critical("ended by an error", exc_info=(kind, error, trace))
    if sys.stderr.isatty() and not sys.stdout.isatty():
        sys.__excepthook__(kind, error, trace)


def _log_what_ended_a_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is None or issubclass(ended.exc_type, SystemExit):
        return
    what = (ended.exc_type, ended.exc_value, ended.exc_traceback)
    name = ended.thread.name if ended.thread else None
    logging.getLogger(__name__).critical("a thread was ended by an error: %s", name, exc_info=what)


def _redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in line.items():
        if isinstance(value, str) and len(value) > 12:  # noqa: PLR2004 - shorter than any card number
            line[name] = redact(value)
    return line
