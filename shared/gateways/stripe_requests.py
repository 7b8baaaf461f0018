"""What is sent to Stripe for each operation: its address and the parameters that are frozen with it."""

from collections.abc import Mapping
from typing import Any

from shared.gateways import Cancel, Capture, Charge, Refund, Request
from shared.gateways.stripe_amounts import to_gateway_minor
from shared.payments import OperationKind

# Only the simulator has a card for those who bring none.
SIMULATED_CARD = "pm_card_visa"
INTENTS = "/v1/payment_intents"
REFUNDS = "/v1/refunds"
WITH_CHARGE = {"expand": ["latest_charge"]}
# The parameter that a capture and a cancel carry in their address.
TARGET = "payment_intent"


def freeze(request: Request, *, simulated: bool) -> dict[str, Any]:
    """The parameters of the one call that carries this request out."""
    match request:
        case Charge():
            return _charge(request, simulated=simulated)
        case Capture():
            amount = to_gateway_minor(request.money)
            # A cart's payment may have got its order since the money was held.
            order = {"metadata": {"order_id": request.order_id}} if request.order_id else {}
            return {TARGET: request.gateway_ref, "amount_to_capture": amount, **order, **WITH_CHARGE}
        case Cancel():
            reason = {"cancellation_reason": "requested_by_customer"}
            return {TARGET: request.gateway_ref, **reason, **WITH_CHARGE}
        case Refund():
            return {
                TARGET: request.gateway_ref,
                "amount": to_gateway_minor(request.money),
                "metadata": {"payment_id": request.payment_id, "operation_id": request.operation_id},
            }


def _charge(charge: Charge, *, simulated: bool) -> dict[str, Any]:
    """A PaymentIntent that is created and confirmed at once."""
    token = charge.payment_method_id or (SIMULATED_CARD if simulated else None)
    parameters: dict[str, Any] = {
        "amount": to_gateway_minor(charge.money),
        "currency": charge.money.currency.lower(),
        "capture_method": "manual" if charge.hold else "automatic",
        "metadata": _labels(charge),
        **WITH_CHARGE,
    }
    if charge.customer_ref:
        parameters["customer"] = charge.customer_ref
    if token:
        parameters |= {"confirm": True, "payment_method": token, "off_session": charge.off_session}
    if charge.return_url:
        # Redirect-capable methods may be used: the customer has somewhere to come back to.
        parameters["automatic_payment_methods"] = {"enabled": True}
        if token:
            parameters["return_url"] = charge.return_url
    else:
        parameters["payment_method_types"] = ["card"]
    return parameters


def _labels(charge: Charge) -> dict[str, str]:
    """All ids that our rows could be rebuilt from; nothing of a person, and none of the client's labels."""
    ids = {
        "payment_id": charge.payment_id,
        "operation_id": charge.operation_id,
        "order_id": charge.order_id,
        "cart_id": charge.cart_id,
        "customer_id": charge.customer_id,
        "reservation_id": charge.reservation_id,
        "payment_method": charge.payment_method,
    }
    return {name: value for name, value in ids.items() if value}


def address(kind: OperationKind, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Where to post an operation's frozen parameters, and what is left of them for the body."""
    if kind is OperationKind.REFUND:
        return REFUNDS, dict(parameters)
    if kind in {OperationKind.CAPTURE, OperationKind.CANCEL}:
        body = {name: value for name, value in parameters.items() if name != TARGET}
        return f"{INTENTS}/{parameters[TARGET]}/{kind}", body
    return INTENTS, dict(parameters)
