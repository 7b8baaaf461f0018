"""One request and its answer: access, faults, idempotency, latency and execution, in Stripe's order."""

import logging
import random
import socket
import struct
from collections.abc import Callable

from aiohttp import web

from deploy.stripe_simulator.access import API_VERSION, check_access, check_form
from deploy.stripe_simulator.errors import StripeError, internal_error, invalid, lock_timeout, rate_limited
from deploy.stripe_simulator.faults import Fault, FaultKind
from deploy.stripe_simulator.ids import new_id
from deploy.stripe_simulator.operation import Operation
from deploy.stripe_simulator.rendering import Rendered
from deploy.stripe_simulator.simulator import Simulator, pause
from deploy.stripe_simulator.store import Store
from deploy.stripe_simulator.wire import Answer, Form, MalformedForm, nest, parse_pairs, to_json

Query = Callable[
    [Store, str, Form], Rendered
]  # a GET endpoint: (state, id in the path, parameters) -> answer
Pairs = list[tuple[str, str]]

BODY_MAX_BYTES = 1024 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: closing sends RST instead of FIN

log = logging.getLogger(__name__)


async def answer_get(simulator: Simulator, request: web.Request, query: Query) -> web.StreamResponse:
    """Answer a GET."""
    request_id = new_id("req_", 14)
    try:
        check_access(request.headers)
        form = _nest(_parse(request.rel_url.raw_query_string))
        fault = simulator.take_fault(form, request.match_info.get("id", ""), request.path, read=True)
        if fault is not None and _fails(request, fault):
            return web.Response()
        await pause(simulator.draw_delay_s(confirms=False))
        answer = Answer(200, to_json(query(simulator.store, request.match_info.get("id", ""), form)))
    except StripeError as error:
        answer = error.answer(request_id)
    except Exception:
        log.exception("request failed", extra={"path": request.path, "request_id": request_id})
        answer = internal_error().answer(request_id)
    return _respond(answer, request_id)


async def answer_post(simulator: Simulator, request: web.Request, operation: Operation) -> web.StreamResponse:
    """Answer a POST, unless a fault says otherwise."""
    request_id = new_id("req_", 14)
    fault = None
    try:
        check_access(request.headers)
        pairs = await _read_pairs(request)
        form = _nest(pairs)
        fault = simulator.take_fault(form, request.match_info.get("id", ""), request.path)
        if fault and fault.kind in RESETS:
            _disconnect(request, reset=True)
            return web.Response()
        answer, fault = await _converse(simulator, request, operation, form, pairs, request_id, fault)
        if fault and fault.kind is FaultKind.LOST_RESPONSE:
            _disconnect(request, reset=False)
            return web.Response()
    except StripeError as error:
        if fault and fault.kind not in REFUSALS:
            simulator.faults.give_back(fault)
        answer = error.answer(request_id)
    except Exception:
        log.exception("request failed", extra={"path": request.path, "request_id": request_id})
        answer = internal_error().answer(request_id)
    return _respond(answer, request_id, request.headers.get("Idempotency-Key"))


def _fails(request: web.Request, fault: Fault) -> bool:
    """Let a GET meet a fault: disconnect it and return true, or raise the StripeError it is answered with."""
    if fault.kind in RESETS or fault.kind is FaultKind.LOST_RESPONSE:
        _disconnect(request, reset=fault.kind in RESETS)
        return True
    refuse = REFUSALS.get(fault.kind, internal_error)
    raise refuse()


RESETS = (FaultKind.CONNECTION_RESET, FaultKind.UNAVAILABLE)
REFUSALS = {FaultKind.RATE_LIMIT: rate_limited, FaultKind.LOCK_TIMEOUT: lock_timeout}


async def _converse(
    simulator: Simulator,
    request: web.Request,
    operation: Operation,
    form: Form,
    pairs: Pairs,
    request_id: str,
    fault: Fault | None,
) -> tuple[Answer, Fault | None]:
    """Return the answer, and the fault if it is still to come.

    Raises StripeError for what is refused before anything is executed, and so leaves the key free.
    """
    if fault and fault.kind in REFUSALS:
        refuse = REFUSALS[fault.kind]
        raise refuse()
    with simulator.keys.claim(request.headers.get("Idempotency-Key"), request.path, pairs) as claim:
        if claim.kept is not None:
            if fault and fault.kind is not FaultKind.LOST_RESPONSE:  # nothing is executed: nothing can fail
                simulator.faults.give_back(fault)
            await pause(simulator.draw_delay_s(confirms=False))
            return claim.kept, fault
        checked = operation.check(form)
        key = request.headers.get("Idempotency-Key")
        delay_s = simulator.draw_delay_s(key, confirms=operation.confirms(checked))
        # The charge falls somewhere within the call, so that a caller killed while waiting leaves either.
        before_s = delay_s * random.random()  # noqa: S311 - not a secret
        await pause(before_s)
        target = request.match_info.get("id", "")
        answer = simulator.execute(operation, target, checked, claim, request_id, fault)
        await pause(delay_s - before_s)
        return answer, fault


async def _read_pairs(request: web.Request) -> Pairs:
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        message = "Request body is too large."
        raise invalid(message, status=413) from error
    check_form(request.content_type, len(body))
    try:
        return _parse(body.decode())
    except UnicodeDecodeError as error:
        message = "Invalid request: the body is not UTF-8."
        raise invalid(message) from error


def _parse(text: str) -> Pairs:
    try:
        return parse_pairs(text)
    except MalformedForm as error:
        message = f"Invalid request: {error}"
        raise invalid(message) from error


def _nest(pairs: Pairs) -> Form:
    try:
        return nest(pairs)
    except MalformedForm as error:
        raise invalid(str(error)) from error


def _disconnect(request: web.Request, *, reset: bool) -> None:
    """Close the connection without a byte of answer, by RST if `reset`."""
    if (transport := request.transport) is None:
        return
    if reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    transport.abort()


def _respond(answer: Answer, request_id: str, key: str | None = None) -> web.Response:
    headers = {
        "Content-Type": "application/json",
        "Request-Id": request_id,
        "Stripe-Version": API_VERSION,
        **answer.headers,
    }
    if key is not None:
        headers["Idempotency-Key"] = key
    return web.Response(body=answer.body, status=answer.status, headers=headers)
