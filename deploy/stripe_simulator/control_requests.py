"""How the control endpoints read their requests and answer them."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from deploy.stripe_simulator.errors import StripeError
from deploy.stripe_simulator.wire import to_json

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Unacceptable(ValueError):
    """A control request that says something that cannot be done."""


def page_limit(request: web.Request) -> int:
    """Return how many objects a page is to have. Raises Unacceptable."""
    limit = request.query.get("limit", str(LIMIT_DEFAULT))
    if not limit.isdecimal() or not 1 <= int(limit) <= LIMIT_MAX:
        message = f"limit must be from 1 to {LIMIT_MAX}"
        raise Unacceptable(message)
    return int(limit)


def guarded(handler: Callable[[web.Request], Awaitable[object]]) -> Handler:
    """Let a handler answer in JSON, and with the error of what it refuses."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return _respond(200, await handler(request))
        except StripeError as error:
            return _respond(error.status, {"error": dict(error.fields)})
        except ValueError as error:  # Unacceptable, an unknown kind, impossible numbers
            return _respond(400, {"error": {"message": str(error)}})

    return answer


def number(name: str, value: object) -> float:
    """Return `value` if it is a number. Raises Unacceptable."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"{name} must be a number"
        raise Unacceptable(message)
    return value


async def read(request: web.Request, known: set[str], *, or_null: bool = False) -> dict[str, Any]:
    """Return the request's JSON object, which has only `known` fields. Raises Unacceptable."""
    try:
        body = json.loads(await request.text())
    except ValueError as error:
        message = f"the body must be JSON: {error}"
        raise Unacceptable(message) from error
    if body is None and or_null:
        return {}
    if not isinstance(body, dict) or not body.keys() <= known:
        message = f"the body must be an object with no other fields than {', '.join(sorted(known))}"
        raise Unacceptable(message)
    return body


def _respond(status: int, value: object) -> web.Response:
    return web.Response(body=to_json(value), status=status, content_type="application/json")
