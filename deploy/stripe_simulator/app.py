"""The route table: which path leads to which operation or query."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from deploy.stripe_simulator import (
    control,
    control_actions,
    control_seeding,
    control_webhooks,
    customers,
    disputes,
    events,
    queries,
    saved_cards,
    setup_intents,
)
from deploy.stripe_simulator import refund_operations as refunds
from deploy.stripe_simulator.conversation import Query
from deploy.stripe_simulator.errors import invalid
from deploy.stripe_simulator.exchange import BODY_MAX_BYTES, carry_get, carry_post
from deploy.stripe_simulator.operation import Operation
from deploy.stripe_simulator.operations import (
    CANCEL_INTENT,
    CAPTURE_INTENT,
    CONFIRM_INTENT,
    CREATE_INTENT,
    UPDATE_INTENT,
)
from deploy.stripe_simulator.rendering import Rendered
from deploy.stripe_simulator.simulator import Simulator
from deploy.stripe_simulator.store import Store
from deploy.stripe_simulator.wire import Form

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

INTENTS = queries.INTENTS_URL
CUSTOMERS = customers.CUSTOMERS_URL
METHODS = saved_cards.METHODS_URL
REFUNDS = refunds.REFUNDS_URL
SETUPS = setup_intents.SETUPS_URL
OPERATIONS: dict[str, Operation] = {
    INTENTS: CREATE_INTENT,
    INTENTS + "/{id}": UPDATE_INTENT,
    INTENTS + "/{id}/confirm": CONFIRM_INTENT,
    INTENTS + "/{id}/capture": CAPTURE_INTENT,
    INTENTS + "/{id}/cancel": CANCEL_INTENT,
    CUSTOMERS: customers.CREATE_CUSTOMER,
    CUSTOMERS + "/{id}": customers.UPDATE_CUSTOMER,
    METHODS: saved_cards.CREATE_METHOD,
    METHODS + "/{id}": saved_cards.UPDATE_METHOD,
    METHODS + "/{id}/attach": saved_cards.ATTACH_METHOD,
    METHODS + "/{id}/detach": saved_cards.DETACH_METHOD,
    REFUNDS: refunds.CREATE_REFUND,
    REFUNDS + "/{id}": refunds.UPDATE_REFUND,
    REFUNDS + "/{id}/cancel": refunds.CANCEL_REFUND,
    SETUPS: setup_intents.CREATE_SETUP,
    SETUPS + "/{id}/confirm": setup_intents.CONFIRM_SETUP,
    SETUPS + "/{id}/cancel": setup_intents.CANCEL_SETUP,
}
DELETIONS: dict[str, Operation] = {CUSTOMERS + "/{id}": customers.DELETE_CUSTOMER}
QUERIES: dict[str, Query] = {
    INTENTS: queries.list_intents,
    INTENTS + "/search": queries.search_intents,
    INTENTS + "/{id}": queries.retrieve_intent,
    queries.CHARGES_URL: queries.list_charges,
    queries.CHARGES_URL + "/{id}": queries.retrieve_charge,
    events.EVENTS_URL: events.list_events,
    events.EVENTS_URL + "/{id}": events.retrieve,
    CUSTOMERS: customers.list_customers,
    CUSTOMERS + "/{id}": customers.retrieve,
    CUSTOMERS + "/{id}/payment_methods": saved_cards.list_of_customer,
    METHODS: saved_cards.list_methods,
    METHODS + "/{id}": saved_cards.retrieve,
    disputes.DISPUTES_URL: disputes.list_disputes,
    disputes.DISPUTES_URL + "/{id}": disputes.retrieve,
    REFUNDS: refunds.list_refunds,
    REFUNDS + "/{id}": refunds.retrieve,
    SETUPS + "/{id}": setup_intents.retrieve,
}


def build_app(simulator: Simulator) -> web.Application:
    """Return the application that serves `simulator`."""
    app = web.Application(client_max_size=BODY_MAX_BYTES)
    app.cleanup_ctx.append(_background(simulator))
    for path, query in QUERIES.items():
        app.router.add_get(path, _getter(simulator, query), allow_head=False)
    for path, operation in OPERATIONS.items():
        app.router.add_post(path, _poster(simulator, operation))
    for path, operation in DELETIONS.items():
        app.router.add_delete(path, _poster(simulator, operation))
    app.add_routes(control.routes(simulator))
    app.add_routes(control_actions.routes(simulator))
    app.add_routes(control_webhooks.routes(simulator))
    app.add_routes(control_seeding.routes(simulator))
    app.router.add_route("*", "/{path:.*}", _unrecognized(simulator))
    return app


def _background(simulator: Simulator) -> Callable[[web.Application], AsyncIterator[None]]:
    async def run(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(simulator.run_in_background())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return run


def _getter(simulator: Simulator, query: Query) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await carry_get(simulator, request, query)

    return handle


def _poster(simulator: Simulator, operation: Operation) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await carry_post(simulator, request, operation)

    return handle


def _unrecognized(simulator: Simulator) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        def refuse(_store: Store, _object_id: str, _form: Form) -> Rendered:
            message = (
                f"Unrecognized request URL ({request.method}: {request.path}). Please see "
                "https://stripe.com/docs or we can help at https://support.stripe.com/."
            )
            raise invalid(message, status=404)

        return await carry_get(simulator, request, refuse)

    return handle
