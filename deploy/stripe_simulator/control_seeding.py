"""Many objects at once under /_control: a ledger to measure with, or an empty one."""

from typing import Any

from aiohttp import web

from deploy.stripe_simulator import intents, refunds
from deploy.stripe_simulator.control_requests import Unacceptable, guarded, read
from deploy.stripe_simulator.lookups import CHARGE, INTENT
from deploy.stripe_simulator.operations import CHARGE_BY_INTENT
from deploy.stripe_simulator.simulator import Simulator
from deploy.stripe_simulator.store import Facts, Store

BATCH_MAX = 5_000
CARD = "pm_card_visa"
FIELDS = {"amount", "currency", "created", "metadata", "refund", "refund_metadata"}


def routes(simulator: Simulator) -> list[web.RouteDef]:
    """Return the routes that fill and empty one simulator."""
    seeding = Seeding(simulator)
    return [
        web.post("/_control/seed", guarded(seeding.seed)),
        web.delete("/_control/objects", guarded(seeding.forget)),
    ]


class Seeding:
    """The handlers; each returns what it answers with."""

    def __init__(self, simulator: Simulator) -> None:
        """Fill `simulator`."""
        self._simulator = simulator

    async def seed(self, request: web.Request) -> object:
        """Take `{"charges": [{"amount", "currency", "created", "metadata", "refund", "refund_metadata"}]}`.

        Each becomes a PaymentIntent that has succeeded, with its charge, and a refund of `refund` minor units
        unless that is 0 or absent. Answers with their ids, in the order given. No event is made of it.
        """
        body = await read(request, {"charges"})
        wanted = body.get("charges")
        if not isinstance(wanted, list) or len(wanted) > BATCH_MAX or not all(map(_is_fit, wanted)):
            message = f"charges must be a list of at most {BATCH_MAX} objects of {', '.join(sorted(FIELDS))}"
            raise Unacceptable(message)
        store = self._simulator.store
        endpoint, store.endpoint = store.endpoint, None
        try:
            with store.transaction():
                return {"made": [_make(store, each) for each in wanted]}
        finally:
            store.endpoint = endpoint

    async def forget(self, _request: web.Request) -> object:
        """Delete everything that was made, and every idempotency key."""
        with self._simulator.store.transaction():
            self._simulator.store.forget()
        return {}


def _is_fit(wanted: Any) -> bool:
    return (
        isinstance(wanted, dict)
        and wanted.keys() <= FIELDS
        and all(type(wanted.get(name)) is int for name in ("amount", "created"))
        and type(wanted.get("refund", 0)) is int
        and isinstance(wanted.get("currency"), str)
        and all(isinstance(wanted.get(name, {}), dict) for name in ("metadata", "refund_metadata"))
    )


def _make(store: Store, wanted: Facts) -> dict[str, str | None]:
    created = wanted["created"]
    asked: Facts = {name: wanted[name] for name in ("amount", "currency", "metadata") if name in wanted}
    method = {"id": CARD, "_card": CARD}
    intent = intents.new_intent(
        {**asked, "payment_method": method, "payment_method_types": ["card"]}, created
    )
    charge = intents.confirm(intent, {}, created)
    if charge is None or not charge["paid"]:
        message = f"an amount of {wanted['amount']} is declined"
        raise Unacceptable(message)
    store.insert(INTENT, intent, searchable=True)
    store.insert(CHARGE, charge, links={CHARGE_BY_INTENT: intent["id"]})
    refund = None
    if amount := wanted.get("refund"):
        metadata = wanted.get("refund_metadata", {})
        refund = refunds.make(store, charge, amount, created=created, metadata=metadata)["id"]
    return {"payment_intent": intent["id"], "charge": charge["id"], "refund": refund}
