"""Events: a record of what has changed, made for every change while a webhook endpoint is set."""

import random
import time
from collections.abc import Callable

from deploy.stripe_simulator import params
from deploy.stripe_simulator.access import API_VERSION
from deploy.stripe_simulator.errors import missing
from deploy.stripe_simulator.ids import new_id
from deploy.stripe_simulator.lists import CREATED, PAGING, as_list, page_of
from deploy.stripe_simulator.params import not_simulated, text
from deploy.stripe_simulator.rendering import Rendered
from deploy.stripe_simulator.store import Facts, Store
from deploy.stripe_simulator.wire import Form

EVENT = "event"
EVENTS_URL = "/v1/events"
REORDER_S = 0.5  # reordered events are spread over this time

_LIST: dict[str, params.Check] = {
    **CREATED,
    **PAGING,
    "delivery_success": not_simulated,
    "expand": params.expansions(),
    "type": text(),
    "types": not_simulated,
}


def announce(store: Store, kind: str, show: Callable[[Facts], Rendered], facts: Facts) -> None:
    """Record that an object, shown by `show`, has changed, and queue it for delivery.

    Without an endpoint that wants it nothing is made, not even what would be shown: most simulators run
    without.
    """
    if (endpoint := store.endpoint) is None or not endpoint.wants(kind):
        return
    request_id, key = store.cause
    event_id = new_id("evt_3")
    event = {
        "id": event_id,
        "object": EVENT,
        "account": None,
        "api_version": API_VERSION,
        "context": None,
        "created": store.now_s(),
        "data": {"object": show(facts)},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": request_id, "idempotency_key": key},
        "type": kind,
    }
    store.insert(EVENT, event, status=kind)
    if endpoint.drops(kind):
        _queue(store, event_id, kind, 0.0, "dropped")
        return
    for _ in range(endpoint.copies()):
        spread_s = random.random() * REORDER_S if endpoint.reorder else 0.0  # noqa: S311 - not a secret
        _queue(store, event_id, kind, time.time() + endpoint.delay_ms / 1000 + spread_s, "waiting")


def queue_again(store: Store, event_id: str) -> None:
    """Deliver an event once more, at once. Raises StripeError when there is none."""
    event = find(store, event_id)
    _queue(store, event_id, event["type"], time.time(), "waiting")


def _queue(store: Store, event_id: str, kind: str, due_s: float, state: str) -> None:
    sql = "INSERT INTO deliveries (event_id, type, due_s, attempts, state) VALUES (?, ?, ?, 0, ?)"
    store.execute(sql, (event_id, kind, due_s, state))


def find(store: Store, object_id: str) -> Facts:
    """Return an event's facts. Raises StripeError when there is none."""
    if (facts := store.find(EVENT, object_id)) is None:
        raise missing("event", object_id)
    return facts


def with_pending(store: Store, facts: Facts) -> Rendered:
    """Return an Event with the number of its deliveries that are still to come."""
    sql = "SELECT count(*) FROM deliveries WHERE event_id = ? AND state = 'waiting'"
    (pending,) = store.execute(sql, (facts["id"],)).fetchone()
    return {**facts, "pending_webhooks": pending}


def retrieve(store: Store, object_id: str, form: Form) -> Rendered:
    """Show one event. Raises StripeError."""
    params.validate(form, {"expand": params.expansions()})
    return with_pending(store, find(store, object_id))


def list_events(store: Store, _object_id: str, form: Form) -> Rendered:
    """Show one page of events, newest first. Raises StripeError."""
    checked = params.validate(form, _LIST)
    found, has_more = page_of(store, EVENT, checked, status=checked.get("type"))
    return as_list([with_pending(store, facts) for facts in found], EVENTS_URL, has_more=has_more)
