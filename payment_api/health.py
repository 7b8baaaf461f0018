"""Whether the process is alive, whether it can accept payments, and what it has counted."""

import os
from http import HTTPStatus

import flask
import redis
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from payment_api.services import services
from shared.commands.pause import halted
from shared.database import reading
from shared.models import Payment

blueprint = flask.Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> flask.Response:
    """The process answers."""
    return flask.jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[flask.Response, int]:
    """Payments can be accepted: the database answers and has our tables. Redis only shortens the wait."""
    database = _database()
    status = HTTPStatus.OK if database == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
    word = "ready" if database == "ok" else "not ready"
    facts = halted(services().sessions) if database == "ok" else {}
    return flask.jsonify(status=word, database=database, redis=_redis(), **facts), status


@blueprint.get("/metrics")
def metrics() -> flask.Response:
    """Prometheus's figures, of all of this server's processes together."""
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return flask.Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _database() -> str:
    try:
        with reading(services().sessions) as session:
            # Refused, too, by a database that only reads, as a failover may leave one behind.
            session.execute(select(Payment.id).limit(0).with_for_update())
    except SQLAlchemyError as error:
        return f"away ({type(error).__name__})"
    return "ok"


def _redis() -> str:
    try:
        services().redis.ping()
    except redis.RedisError:
        return "away: outcomes are polled for"
    return "ok"
