"""The headers and bodies that all routes share: correlation ids, Prefer, Idempotency-Key, exact JSON."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import flask
from flask.json.provider import DefaultJSONProvider
from marshmallow import RAISE, ValidationError
from webargs.flaskparser import FlaskParser, is_json_request

from payment_api.errors import ErrorCode, RequestRefused
from payment_api.principal import current_principal
from shared.card_numbers import find_card_data
from shared.commands.idempotency import IdempotentRequest, hash_request
from shared.commands.operations import Origin
from shared.database import new_id
from shared.documents import parse_json, render_json
from shared.trace_ids import usable_correlation_id, usable_traceparent

MAX_BODY_BYTES = 64 * 1024
MAX_WAIT_S = 30
MAX_SHOWN_PATH = 100
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,18})\"?")


class ExactJSONProvider(DefaultJSONProvider):
    """Flask's JSON with exact decimals."""

    def dumps(self, obj: Any, **_: Any) -> str:
        """Write JSON; a Decimal becomes a number with exactly its digits."""
        return render_json(obj)

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """Read JSON; a fraction becomes a Decimal."""
        return parse_json(s)


class StrictParser(FlaskParser):
    """Reads a request for a schema: exact JSON only, unknown fields refused, card data refused first."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": RAISE, "query": RAISE}  # noqa: RUF012 - as webargs declares it

    def load_json(self, req: flask.Request, _schema: Any) -> Any:
        """The request's body. Raises RequestRefused unless it is JSON without card data."""
        return read_body(req)

    def load_querystring(self, req: flask.Request, schema: Any) -> Any:
        """The query parameters. Raises RequestRefused for card data in them."""
        _refuse_card_data(req.args.to_dict(flat=False))
        return super().load_querystring(req, schema)

    def handle_error(self, error: ValidationError, *_: Any, **__: Any) -> NoReturn:
        """Answer with the first problem, named by its field."""
        raise RequestRefused(ErrorCode.VALIDATION_FAILED, first_problem(error.messages_dict))


class OptionalBodyParser(StrictParser):
    """Reads no body at all like an empty object, for commands that need no field."""

    def load_json(self, req: flask.Request, schema: Any) -> Any:
        """The request's body; `{}` where there is none."""
        if not req.content_length and not req.get_data():
            flask.g.body = {}
        return super().load_json(req, schema)


def read_body(request: flask.Request) -> Any:
    """Parse the body as exact JSON, once a request. Raises RequestRefused."""
    if "body" in flask.g:
        return flask.g.body
    if not is_json_request(request):
        raise RequestRefused(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "The body must be application/json")
    raw = request.get_data()
    if len(raw) > MAX_BODY_BYTES:
        raise RequestRefused(ErrorCode.PAYLOAD_TOO_LARGE, "The body is larger than 64 KiB")
    if len(raw) < (request.content_length or 0):
        raise RequestRefused(ErrorCode.BAD_REQUEST, "The body is shorter than its Content-Length")
    try:
        body = parse_json(raw, keep_unusable=True)
    except ValueError:
        raise RequestRefused(ErrorCode.MALFORMED_JSON, "The body is not valid JSON") from None
    _refuse_card_data(body)
    flask.g.body = body
    return body


def _refuse_card_data(document: Any) -> None:
    if path := find_card_data(document):
        message = f"{_shown(path)}: card numbers and security codes are not accepted here"
        raise RequestRefused(ErrorCode.CARD_DATA_REFUSED, message)


def first_problem(messages: Mapping[str, Any], path: str = "") -> str:
    """Flatten marshmallow's messages to `field: what is wrong`, for the first field."""
    # `json` and `query` are webargs' names for where it looked; clients know only fields.
    name, inner = next(iter(messages.items()))
    if str(name) not in {"json", "query", "_schema"}:
        path = f"{path}.{name}" if path else str(name)
    if isinstance(inner, Mapping):
        return first_problem(inner, path)
    return f"{_shown(path or 'body')}: {inner[0] if isinstance(inner, list) else inner}"


def _shown(path: str) -> str:
    """A field's name as an answer may show it: cut off, and without what could not be sent or printed."""
    return "".join(each if each.isprintable() else "?" for each in path[:MAX_SHOWN_PATH])


def begin_request() -> None:
    """Take the caller's correlation id, or make one; keep the trace that the request belongs to."""
    headers = flask.request.headers
    flask.g.correlation_id = usable_correlation_id(headers.get("X-Correlation-Id")) or str(new_id())
    flask.g.traceparent = usable_traceparent(headers.get("traceparent"))


def current_origin() -> Origin:
    """Who sent this request and which trace it belongs to."""
    return Origin(
        actor=current_principal().id,
        correlation_id=flask.g.correlation_id,
        traceparent=flask.g.traceparent,
    )


def idempotent_request() -> IdempotentRequest | None:
    """The request's Idempotency-Key, bound to its caller, method, path and body; None without one."""
    request = flask.request
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        message = "Idempotency-Key: must be 1 to 255 visible ASCII characters"
        raise RequestRefused(ErrorCode.VALIDATION_FAILED, message)
    _refuse_card_data({"Idempotency-Key": key})
    return IdempotentRequest(
        principal=current_principal().id,
        key=key,
        request_hash=hash_request(request.method, request.path, read_body(request)),
    )


@dataclass(frozen=True, slots=True)
class Preference:
    """How long the caller wants to wait, in seconds, and what to say was honoured (RFC 7240)."""

    wait_s: float
    applied: str | None


def preference(default_wait_s: float) -> Preference:
    """Read the Prefer header: `respond-async` or `wait=N`; the first of them counts, others are ignored."""
    for each in ",".join(flask.request.headers.getlist("Prefer")).lower().split(","):
        token = each.strip()
        if token == "respond-async":  # noqa: S105 - a preference, not a password
            return Preference(0, token)
        if match := _WAIT.fullmatch(token):
            wait_s = min(int(match[1]), MAX_WAIT_S)
            return Preference(wait_s, f"wait={wait_s}")
    return Preference(default_wait_s, None)
