"""One request and its answer, whatever carries them: access, faults, keys, execution, in Stripe's order."""

import logging
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from deploy.stripe_simulator.access import API_VERSION, check_access, check_form
from deploy.stripe_simulator.errors import StripeError, internal_error, invalid, lock_timeout, rate_limited
from deploy.stripe_simulator.faults import Fault, FaultKind
from deploy.stripe_simulator.ids import new_id
from deploy.stripe_simulator.operation import Operation
from deploy.stripe_simulator.rendering import Rendered
from deploy.stripe_simulator.simulator import Simulator
from deploy.stripe_simulator.store import Store
from deploy.stripe_simulator.wire import Answer, Form, MalformedForm, nest, parse_pairs, to_json

Query = Callable[
    [Store, str, Form], Rendered
]  # a GET endpoint: (state, id in the path, parameters) -> answer
Pairs = list[tuple[str, str]]

log = logging.getLogger(__name__)


class Cut(Enum):
    """The connection ends without a byte of answer."""

    CLOSED = auto()
    RESET = auto()  # by RST instead of FIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request as it was read; `body` is None for one that is too large, `target` the id in the path."""

    path: str
    target: str
    headers: Mapping[str, str]
    query: str = ""
    body: bytes | None = b""
    content_type: str = ""


# Yields the seconds to wait before it goes on; its value is what is sent.
Conversation = Generator[float, None, Answer | Cut]

RESETS = (FaultKind.CONNECTION_RESET, FaultKind.UNAVAILABLE)
REFUSALS = {FaultKind.RATE_LIMIT: rate_limited, FaultKind.LOCK_TIMEOUT: lock_timeout}


def answer_get(simulator: Simulator, call: Call, query: Query) -> Conversation:
    """Answer a GET."""
    request_id = new_id("req_", 14)
    try:
        check_access(call.headers)
        form = _nest(_parse(call.query))
        fault = simulator.take_fault(form, call.target, call.path, read=True)
        if fault is not None:
            return _fails(fault)
        yield simulator.draw_delay_s(confirms=False)
        answer = Answer(200, to_json(query(simulator.store, call.target, form)))
    except StripeError as error:
        answer = error.answer(request_id)
    except Exception:
        log.exception("request failed", extra={"path": call.path, "request_id": request_id})
        answer = internal_error().answer(request_id)
    return _finished(answer, request_id)


def answer_post(simulator: Simulator, call: Call, operation: Operation) -> Conversation:
    """Answer a POST, unless a fault says otherwise."""
    request_id = new_id("req_", 14)
    fault = None
    try:
        check_access(call.headers)
        pairs = _read_pairs(call)
        form = _nest(pairs)
        fault = simulator.take_fault(form, call.target, call.path)
        if fault and fault.kind in RESETS:
            return Cut.RESET
        answer, fault = yield from _converse(simulator, call, operation, form, pairs, request_id, fault)
        if fault and fault.kind is FaultKind.LOST_RESPONSE:
            return Cut.CLOSED
    except StripeError as error:
        if fault and fault.kind not in REFUSALS:
            simulator.faults.give_back(fault)
        answer = error.answer(request_id)
    except Exception:
        log.exception("request failed", extra={"path": call.path, "request_id": request_id})
        answer = internal_error().answer(request_id)
    return _finished(answer, request_id, call.headers.get("Idempotency-Key"))


def _fails(fault: Fault) -> Cut:
    """How a GET that meets a fault is cut off, or raise the StripeError that it is answered with."""
    if fault.kind in RESETS:
        return Cut.RESET
    if fault.kind is FaultKind.LOST_RESPONSE:
        return Cut.CLOSED
    refuse = REFUSALS.get(fault.kind, internal_error)
    raise refuse()


def _converse(
    simulator: Simulator,
    call: Call,
    operation: Operation,
    form: Form,
    pairs: Pairs,
    request_id: str,
    fault: Fault | None,
) -> Generator[float, None, tuple[Answer, Fault | None]]:
    """Return the answer, and the fault if it is still to come.

    Raises StripeError for what is refused before anything is executed, and so leaves the key free.
    """
    if fault and fault.kind in REFUSALS:
        refuse = REFUSALS[fault.kind]
        raise refuse()
    key = call.headers.get("Idempotency-Key")
    with simulator.keys.claim(key, call.path, pairs) as claim:
        if claim.kept is not None:
            if fault and fault.kind is not FaultKind.LOST_RESPONSE:  # nothing is executed: nothing can fail
                simulator.faults.give_back(fault)
            yield simulator.draw_delay_s(confirms=False)
            return claim.kept, fault
        checked = operation.check(form)
        delay_s = simulator.draw_delay_s(key, confirms=operation.confirms(checked))
        # The charge falls somewhere within the call, so that a caller killed while waiting leaves either.
        before_s = delay_s * random.random()  # noqa: S311 - not a secret
        yield before_s
        answer = simulator.execute(operation, call.target, checked, claim, request_id, fault)
        yield delay_s - before_s
        return answer, fault


def _read_pairs(call: Call) -> Pairs:
    if call.body is None:
        message = "Request body is too large."
        raise invalid(message, status=413)
    check_form(call.content_type, len(call.body))
    try:
        return _parse(call.body.decode())
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


def _finished(answer: Answer, request_id: str, key: str | None = None) -> Answer:
    headers = {
        "Content-Type": "application/json",
        "Request-Id": request_id,
        "Stripe-Version": API_VERSION,
        **answer.headers,
    }
    if key is not None:
        headers["Idempotency-Key"] = key
    return Answer(answer.status, answer.body, headers)
