"""The control endpoints of webhooks: the endpoint, its troubles, and what became of each delivery."""

from aiohttp import web

from deploy.stripe_simulator.control_requests import Unacceptable, guarded, page_limit, read
from deploy.stripe_simulator.endpoint import FIELDS, checked
from deploy.stripe_simulator.events import queue_again
from deploy.stripe_simulator.simulator import Simulator
from deploy.stripe_simulator.webhooks import STATES, listed


def routes(simulator: Simulator) -> list[web.RouteDef]:
    """Return the webhook control routes of one simulator."""
    control = WebhookControl(simulator)
    return [
        web.get("/_control/webhooks", guarded(control.show)),
        web.put("/_control/webhooks", guarded(control.set)),
        web.post("/_control/webhooks/resend", guarded(control.resend)),
        web.get("/_control/webhooks/deliveries", guarded(control.deliveries)),
    ]


class WebhookControl:
    """The handlers; each returns what it answers with."""

    def __init__(self, simulator: Simulator) -> None:
        """Steer the webhooks of `simulator`."""
        self._simulator = simulator

    async def show(self, _request: web.Request) -> object:
        """Show the endpoint, or null."""
        endpoint = self._simulator.store.endpoint
        return endpoint and endpoint.as_kept()

    async def set(self, request: web.Request) -> object:
        """Take the fields of an Endpoint; null, or a null url, makes and delivers no events."""
        body = await read(request, set(FIELDS), or_null=True)
        if body.get("url") is None:
            self._simulator.webhooks.set_endpoint(None)
        else:
            self._simulator.webhooks.set_endpoint(checked(body))
        return await self.show(request)

    async def resend(self, request: web.Request) -> object:
        """Take `{"event"}`: deliver it once more, whatever has become of it."""
        event_id = str((await read(request, {"event"})).get("event"))
        queue_again(self._simulator.store, event_id)
        return {"event": event_id}

    async def deliveries(self, request: web.Request) -> object:
        """Show every delivery, oldest first, or those in one `state`, from after the id `starting_after`."""
        after, state = request.query.get("starting_after", "0"), request.query.get("state")
        if not after.isdecimal() or (state is not None and state not in STATES):
            message = f"starting_after must be a number and state one of {', '.join(STATES)}"
            raise Unacceptable(message)
        store, limit = self._simulator.store, page_limit(request)
        data, has_more = listed(store, after=int(after), limit=limit, state=state)
        return {"data": data, "has_more": has_more}
