"""Of several disputes of one payment the one that moved last is shown, and late webhooks change nothing."""

import uuid

from payment_worker.foreign import dispute_status, moved
from shared.gateways import Dispute
from shared.models import Payment


def seen(ref: str, status: str) -> Dispute:
    """A dispute as the gateway has it."""
    return Dispute(gateway_ref=ref, charge_ref="pi_1", reason="fraudulent", status=status)


def test_a_second_dispute_keeps_the_status_of_the_first() -> None:
    """So that what is told of the first again is no news, and a step of it is."""
    payment = Payment(id=uuid.uuid4())
    assert dispute_status(payment, "dp_1") is None
    for ref, status in (("dp_1", "needs_response"), ("dp_1", "won"), ("dp_2", "needs_response")):
        payment.dispute = moved(payment.dispute or {}, seen(ref, status))
    assert payment.dispute == {
        "id": "dp_2",
        "reason": "fraudulent",
        "status": "needs_response",
        "others": {"dp_1": "won"},
    }
    assert dispute_status(payment, "dp_1") == "won"
    payment.dispute = moved(payment.dispute or {}, seen("dp_1", "lost"))
    assert (payment.dispute["id"], payment.dispute["others"]) == ("dp_1", {"dp_2": "needs_response"})
