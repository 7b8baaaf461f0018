"""Run the application under gunicorn: a few processes of many threads, most of which wait."""

import logging
import signal
import threading
import time
from types import FrameType
from typing import Any

import flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from prometheus_client.multiprocess import mark_process_dead

from payment_api.app import create_app
from payment_api.services import Services, make_services
from shared.garbage import spare_what_stays
from shared.metrics import POOL_IN_USE
from shared.settings import Settings
from shared.telemetry import get_logger
from shared.tracing import configure_tracing

log = get_logger(__name__)

# Below a container's usual grace of 30 s, and above the longest wait that a client is given by default.
GRACEFUL_TIMEOUT_S = 25
KEEP_ALIVE_S = 15
SAMPLE_EVERY_S = 1.0


class QuietLogger(Logger):
    """gunicorn's logger, speaking through ours: one form for all lines, and one line for each request."""

    def setup(self, cfg: Any) -> None:
        """Leave handlers and levels as they are."""
        self.cfg = cfg
        self.error_log.setLevel(logging.WARNING)
        self.error_log.propagate = True

    def access(self, *_: Any, **__: Any) -> None:
        """The application logs its requests itself."""

    def reopen_files(self) -> None:
        """There are none."""


class Server(BaseApplication):
    """gunicorn, configured in code from our settings."""

    def __init__(self, settings: Settings) -> None:
        """Read no command line and no configuration file."""
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Translate our settings into gunicorn's."""
        host = self._settings.host
        options: dict[str, Any] = {
            # Without the brackets gunicorn reads no host in ::1 and would listen on every address.
            "bind": f"{f'[{host}]' if ':' in host else host}:{self._settings.port}",
            "workers": self._settings.web_workers,
            "worker_class": "gthread",
            "threads": self._settings.web_threads,
            "worker_connections": 2 * self._settings.web_threads,
            "keepalive": KEEP_ALIVE_S,
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            "max_requests": 0,
            "control_socket_disable": True,
            # Whom to believe who the client is, the application decides (TRUSTED_PROXIES).
            "forwarded_allow_ips": "",
            "logger_class": QuietLogger,
            "post_worker_init": _begin_process,
            "child_exit": _forget_figures,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> flask.Flask:
        """Make the application in the worker process, after the fork: connections do not survive one."""
        return create_app(make_services(self._settings))


def _begin_process(worker: Any) -> None:
    configure_tracing("api")
    services: Services = worker.wsgi.extensions["services"]
    threading.Thread(target=_sample_pool, args=(services,), name="pool sampler", daemon=True).start()
    _let_waiting_requests_go(services)
    services.tokens.prepare()
    spare_what_stays()


def _forget_figures(_server: Any, worker: Any) -> None:
    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _sample_pool(services: Services) -> None:
    while True:
        POOL_IN_USE.set(services.pool_in_use())
        time.sleep(SAMPLE_EVERY_S)


def _let_waiting_requests_go(services: Services) -> None:
    """On SIGTERM answer 202 to those who wait for an outcome, instead of holding up the stop for them."""
    stop = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        services.waiting.close()
        if callable(stop):
            stop(number, frame)

    signal.signal(signal.SIGTERM, handle)


def serve_forever(settings: Settings) -> None:
    """Serve until SIGTERM."""
    log.info("serving", url=f"http://{settings.host}:{settings.port}", workers=settings.web_workers)
    if settings.jwks_url and not (settings.jwt_issuer and settings.jwt_audience):
        log.warning("tokens that the issuer made for others may be taken: set JWT_ISSUER and JWT_AUDIENCE")
    if not settings.stripe_webhook_secret:
        log.warning("Stripe's webhooks are refused: STRIPE_WEBHOOK_SECRET is not set")
    Server(settings).run()
