"""Complete the OpenAPI document with what holds for every route: headers and the errors they share."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from apispec import APISpec

from payment_api.access import is_free, is_open
from payment_api.dialects import NATIVE, Dialect, dialect_of
from payment_api.errors import ErrorCode
from payment_api.scopes import needed_scope

_JSON = "application/json"
_CORRELATION = {
    "description": "the request's, or a new one; it is in every log line and event that the request causes",
    "schema": {"type": "string", "maxLength": 128},
}
_MAY_BE_RETRIED = {str(each.status) for each in ErrorCode if each.retry}
_RETRY_AFTER = {
    "description": "seconds after which the same request may succeed; only where a retry helps",
    "schema": {"type": "integer", "minimum": 1},
}
_REQUEST_HEADERS = (
    (
        "Idempotency-Key",
        "binds this request to what it made; a repeat shows that, as it now stands",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
    ),
    (
        "Prefer",
        "RFC 7240: `respond-async`, or `wait=N` with at most 30 seconds",
        {"type": "string"},
    ),
)
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "HS256 with our own secret, RS256 or ES256 with a key of the outside issuer. `sub` is the"
    " caller, `role` what it is (customer by default), `scope` narrows what the role may, `exp` is required",
}
_CHALLENGE = {
    "description": "`Bearer`; in a 403 with the scope that is missing",
    "schema": {"type": "string", "pattern": "^Bearer"},
}
_CHALLENGED = {str(each.status) for each in (ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN)}
_RATE_HEADERS = {
    "RateLimit-Limit": "requests that the caller or its address may make in a window",
    "RateLimit-Remaining": "how many of them are left",
    "RateLimit-Reset": "seconds until the window ends",
}
_RESPONSE_HEADERS = {
    "Preference-Applied": "the preference that was honoured",
    "Idempotent-Replayed": "`true` when the Idempotency-Key was used before",
}


def complete(spec: APISpec, dialects: Sequence[Dialect]) -> None:
    """Add shared headers and error answers, in the dialect of its path, to every operation."""
    original = spec.to_dict

    def to_dict() -> dict[str, Any]:
        # A copy: the document's parts are apispec's own, and would grow with every request.
        document = deepcopy(original())
        document["components"].pop("responses", None)
        document["components"]["schemas"].pop("PaginationMetadata", None)
        document["components"]["securitySchemes"] = {"bearer": _BEARER}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if method != "parameters":
                    _complete_operation(path, method, operation, dialect_of(path, dialects))
        return document

    spec.to_dict = to_dict  # type: ignore[method-assign]


# No commands: whoever sends these needs neither our headers nor to know of our conflicts.
_WEBHOOKS, _USERS = "/webhooks/", "/api/user/"
# A second registration of an address is refused by itself: no key is needed.
_NOTIFICATIONS = "/notification-endpoints"


def _complete_operation(path: str, method: str, operation: dict[str, Any], dialect: Dialect) -> None:
    # What flask-smorest adds by itself are references to its own errors, which we never answer.
    described = {code: each for code, each in operation["responses"].items() if "$ref" not in each}
    if not is_open(path):
        operation["security"] = [{"bearer": [needed_scope(method.upper(), path)]}]
    is_command = method == "post" and not path.startswith((_WEBHOOKS, _NOTIFICATIONS, _USERS))
    codes = _shared_codes(path, operation, dialect, is_command=is_command)
    for code in codes:
        described.setdefault(str(code.status), _refused(code, dialect))
    operation["responses"] = dict(sorted(described.items()))
    if is_command:
        _complete_command(operation)
    for status, response in described.items():
        response.setdefault("headers", {})["X-Correlation-Id"] = _CORRELATION
        if not is_free(path):
            response["headers"] |= _rate_headers()
        if status in _CHALLENGED:
            response["headers"]["WWW-Authenticate"] = _CHALLENGE
        if status in _MAY_BE_RETRIED:
            response["headers"]["Retry-After"] = _RETRY_AFTER


def _refused(code: ErrorCode, dialect: Dialect) -> dict[str, Any]:
    names = ", ".join(sorted(each.name for each in ErrorCode if each.status == code.status))
    schema = {"$ref": f"#/components/schemas/{dialect.refusal_schema}"}
    example = dialect.refusal(code, code.meaning)
    return {"description": names, "content": {_JSON: {"schema": schema, "example": example}}}


def _shared_codes(
    path: str, operation: dict[str, Any], dialect: Dialect, *, is_command: bool
) -> list[ErrorCode]:
    codes = [ErrorCode.VALIDATION_FAILED, ErrorCode.INTERNAL_ERROR, ErrorCode.SERVICE_UNAVAILABLE]
    if "security" in operation:
        codes += [ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN]
    if not is_free(path):
        codes.append(ErrorCode.RATE_LIMITED)
    if "{" in path or (dialect is not NATIVE and not path.startswith(_USERS)):
        codes.append(ErrorCode.PAYMENT_NOT_FOUND)
    if "requestBody" in operation:
        codes.append(ErrorCode.PAYLOAD_TOO_LARGE)
        if not path.startswith(_WEBHOOKS):
            codes.append(ErrorCode.UNSUPPORTED_MEDIA_TYPE)
    if path.startswith(_NOTIFICATIONS):
        codes += [ErrorCode.FORBIDDEN, ErrorCode.ENDPOINT_CONFLICT]
    if is_command:
        codes += [ErrorCode.PAYMENT_CONFLICT, ErrorCode.IDEMPOTENCY_KEY_REUSED]
    return codes


def _rate_headers() -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "integer", "minimum": 0}}
        for name, text in _RATE_HEADERS.items()
    }


def _complete_command(operation: dict[str, Any]) -> None:
    waits = "202" in operation["responses"]
    operation.setdefault("parameters", []).extend(
        {"in": "header", "name": name, "description": text, "required": False, "schema": schema}
        for name, text, schema in _REQUEST_HEADERS
        if waits or name != "Prefer"
    )
    for status, response in operation["responses"].items():
        if status in {"200", "201", "202", "402", "422"}:
            response["headers"] = {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in _RESPONSE_HEADERS.items()
                if waits or name != "Preference-Applied"
            }
        if status == "202" or (waits and status == "201"):
            response["headers"]["Location"] = {
                "description": "where the outcome will be",
                "schema": {"type": "string"},
            }
