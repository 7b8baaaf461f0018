"""Make the Flask application: routes, documentation, and one answer to every error."""

import time
from contextlib import ExitStack
from typing import Any

import flask
import flask_smorest
import flask_swagger_ui
from werkzeug.middleware.proxy_fix import ProxyFix

from payment_api import health, rate_limits, webhooks
from payment_api.access import admit
from payment_api.auditing import begin_audit, end_audit
from payment_api.contracts import (
    account_payments,
    accounts,
    acme,
    catalog,
    delivery,
    delivery_payments,
    holds,
    notifications,
    payments,
    refunds,
)
from payment_api.contracts.payments_schemas import ErrorEnvelopeSchema
from payment_api.dialects import dialect_of
from payment_api.errors import ErrorCode, RequestRefused, explain
from payment_api.http import MAX_BODY_BYTES, ExactJSONProvider, begin_request
from payment_api.metrics import REQUEST_SECONDS, REQUESTS
from payment_api.openapi import complete
from payment_api.protection import protect
from payment_api.services import Services
from shared.database import reason_of
from shared.telemetry import get_logger, log_context
from shared.tracing import span

log = get_logger(__name__)

ASSETS = "/docs/assets"
RETRY_AFTER_S = 1
DIALECTS = (delivery.DIALECT, accounts.DIALECT)  # beside the native one
CONTRACTS = (
    *(payments, holds, refunds, acme, accounts, account_payments),
    *(catalog, delivery, delivery_payments, notifications, webhooks),
)


class Api(flask_smorest.Api):
    """flask-smorest's documentation with our own error answers."""

    ERROR_SCHEMA = ErrorEnvelopeSchema

    def _register_error_handlers(self) -> None:
        """Leave errors to the application's one handler."""


def create_app(services: Services) -> flask.Flask:
    """Make the application around these services. It needs no Kafka, and the gateway only for saved cards."""
    app = flask.Flask(__name__, static_folder=None)
    app.json = ExactJSONProvider(app)
    app.config.update(
        # One byte more than is taken: werkzeug cuts a chunked body off here without a word, and so the
        # first byte too many has to be seen.
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES + 1,
        API_TITLE="Payment API",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        OPENAPI_SWAGGER_UI_PATH="/docs",
        # Served from the package, so that the page works without the internet.
        OPENAPI_SWAGGER_UI_URL=f"{ASSETS}/",
    )
    app.extensions["services"] = services
    _believe_proxies(app, services.settings.trusted_proxies)
    app.before_request(_begin)
    app.before_request(admit)
    app.before_request(begin_audit)
    # Flask calls these in the reverse order.
    app.after_request(_end)
    app.after_request(protect)
    app.after_request(end_audit)
    app.register_error_handler(Exception, _refuse)
    app.register_blueprint(health.blueprint)
    _serve_assets(app)
    api = Api(app)
    for contract in CONTRACTS:
        api.register_blueprint(contract.blueprint)
    complete(api.spec, DIALECTS)
    return app


def _believe_proxies(app: flask.Flask, number: int) -> None:
    """Take the client's address and scheme from as many proxies as there are, and from nobody else."""
    if number:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=number, x_proto=number)  # type: ignore[method-assign]


def _serve_assets(app: flask.Flask) -> None:
    folder = f"{flask_swagger_ui.__path__[0]}/dist"

    @app.get(f"{ASSETS}/<path:name>")
    def asset(name: str) -> flask.Response:
        """A file of the documentation page."""
        return flask.send_from_directory(folder, name, max_age=3600)


def _begin() -> None:
    flask.g.began = time.monotonic()
    begin_request()
    rule = flask.request.url_rule
    name = f"{flask.request.method} {rule.rule if rule else 'none'}"
    flask.g.contexts = ExitStack()
    flask.g.contexts.enter_context(log_context(correlation_id=flask.g.correlation_id))
    flask.g.traceparent = flask.g.contexts.enter_context(
        span(name, flask.g.traceparent, correlation_id=flask.g.correlation_id)
    )


def _end(response: flask.Response) -> flask.Response:
    response.headers["X-Correlation-Id"] = flask.g.get("correlation_id", "")
    if standing := flask.g.get("rate"):
        response.headers.update(rate_limits.headers(standing))
    rule = flask.request.url_rule
    route = rule.rule if rule else "none"
    REQUESTS.labels(route, flask.request.method, response.status_code).inc()
    REQUEST_SECONDS.labels(route, flask.request.method).observe(time.monotonic() - flask.g.began)
    quiet = rule is not None and rule.rule in {"/healthz", "/readyz", "/metrics"}
    (log.debug if quiet else log.info)(
        "request",
        method=flask.request.method,
        # The rule and not the path: what a client put into a path belongs in no log.
        route=route,
        status=response.status_code,
        ms=round((time.monotonic() - flask.g.began) * 1000, 1),
        # What a route found worth telling; one line a request.
        **flask.g.get("facts", {}),
    )
    flask.g.contexts.close()
    return response


def _refuse(error: Exception) -> tuple[dict[str, Any], int, dict[str, str]]:
    code, message = explain(error)
    if code is ErrorCode.INTERNAL_ERROR:
        log.error("request failed", exc_info=error)
    elif code is ErrorCode.SERVICE_UNAVAILABLE:
        log.warning("the database is away or busy", reason=reason_of(error))
    elif code is ErrorCode.GATEWAY_UNAVAILABLE:
        log.warning("the gateway did not answer clearly", reason=str(error))
    elif code is ErrorCode.ORDER_SERVICE_UNAVAILABLE:
        log.warning("the order service did not answer clearly", reason=str(error))
    body = dialect_of(flask.request.path, DIALECTS).refusal(code, message)
    # Whoever is to come back later is told when; an error may know better than we do.
    headers = {"Retry-After": str(getattr(error, "retry_after_s", RETRY_AFTER_S))} if code.retry else {}
    if code.status == ErrorCode.UNAUTHENTICATED.status:
        headers["WWW-Authenticate"] = "Bearer"
    if allowed := getattr(error, "valid_methods", None):
        headers["Allow"] = ", ".join(sorted(allowed))
    if isinstance(error, RequestRefused):
        headers.update(error.headers)
    return body, code.status, headers
