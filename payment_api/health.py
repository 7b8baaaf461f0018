"""Whether the process is alive, and whether it can accept payments."""

from http import HTTPStatus

import flask
import redis
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from payment_api.services import services
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
    return flask.jsonify(status=word, database=database, redis=_redis()), status


def _database() -> str:
    try:
        with services().sessions() as session:
            session.execute(select(Payment.id).limit(1))
    except SQLAlchemyError as error:
        return f"away ({type(error).__name__})"
    return "ok"


def _redis() -> str:
    try:
        services().redis.ping()
    except redis.RedisError:
        return "away: outcomes are polled for"
    return "ok"
