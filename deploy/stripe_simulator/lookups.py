"""Find the objects that a request names, or refuse it."""

from deploy.stripe_simulator.errors import missing
from deploy.stripe_simulator.store import Facts, Store

INTENT = "payment_intent"
CHARGE = "charge"


def find_intent(store: Store, object_id: str, *, param: str | None = None) -> Facts:
    """Return an intent's facts. Raises StripeError when there is none."""
    if (facts := store.find(INTENT, object_id)) is None:
        raise missing("payment_intent", object_id, param=param)
    return facts


def find_charge(store: Store, object_id: str, *, param: str | None = None) -> Facts:
    """Return a charge's facts. Raises StripeError when there is none."""
    if (facts := store.find(CHARGE, object_id)) is None:
        raise missing("charge", object_id, param=param)
    return facts
