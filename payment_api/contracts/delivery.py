"""The delivery contract: customers and their saved cards, answered by the gateway within the request."""

from http import HTTPStatus
from typing import Any

import flask
from flask_smorest import Blueprint

from payment_api import access
from payment_api.contracts import delivery_schemas as schemas
from payment_api.contracts.fields import canonical, is_plain
from payment_api.dialects import Dialect
from payment_api.errors import ErrorCode, RequestRefused
from payment_api.http import StrictParser, idempotent_request
from payment_api.principal import current_principal
from payment_api.services import services
from shared.commands.cards import SaveCard, list_cards, save_card
from shared.commands.customers import CreateCustomer, create_customer
from shared.commands.removal import remove_card
from shared.customers import CustomerNotFound
from shared.database import reading
from shared.gateways.customers import CustomerGateway
from shared.models_customers import SavedCard

DELETED = "Payment method deleted successfully"
NO_KEY = "This API has no STRIPE_SECRET_KEY, which customers and saved cards need"

CUSTOMER_EXAMPLE = {"customerId": "cus_QrT5vXyZ012345"}
CARD_REQUEST = {**CUSTOMER_EXAMPLE, "paymentMethodId": "pm_1QrT5vXyZ0123456789"}
CARD_EXAMPLE = {
    "payment_method_id": "pm_1QrT5vXyZ0123456789",
    "card_last4": "4444",
    "card_brand": "mastercard",
}
DETAILS_EXAMPLE = {
    **CARD_EXAMPLE,
    "cardholder_name": "Ada Lovelace",
    "expiry_date": "08/31",
    "is_default": True,
}


class DeliveryBlueprint(Blueprint):
    """A blueprint that reads requests strictly."""

    ARGUMENTS_PARSER = StrictParser()


blueprint = DeliveryBlueprint(
    "delivery", __name__, url_prefix="/payment", description="Customers and their saved cards"
)


def refusal(code: ErrorCode, message: str) -> dict[str, Any]:
    """A refusal in this contract's words."""
    return {"success": False, "message": message, "errorCode": code.name}


DIALECT = Dialect("/payment/", refusal, "DeliveryRefusal")


def succeeded(data: Any) -> dict[str, Any]:
    """An answer in this contract's words."""
    return {"success": True, "data": data}


@blueprint.route("/customer", methods=["POST"])
@blueprint.arguments(
    schemas.NewCustomerSchema(), example={"email": "ada@shop.example", "name": "Ada Lovelace"}
)
@blueprint.response(
    HTTPStatus.CREATED,
    schemas.CustomerAnswerSchema,
    description="The customer with this email address, made now or before",
    example=succeeded(CUSTOMER_EXAMPLE),
)
def post_customer(body: dict[str, Any]) -> flask.Response:
    """Create a customer, or find the one with this email address."""
    caller = current_principal()
    own_id = body["customerId"]
    if access.is_customer():
        own_id = own_id or caller.id  # what its payments will name
        access.check_customer(own_id)
    command = CreateCustomer(
        email=body["email"],
        name=body["name"],
        client_customer_id=own_id,
        owner=caller.id,
        trusted=not access.is_customer(),
    )
    made = create_customer(services().sessions, _gateway(), command, idempotent_request())
    data = {"customerId": made.customer.gateway_ref}
    return answer(succeeded(data), HTTPStatus.CREATED, replayed=made.replayed)


@blueprint.route("/customer/<path:email>", methods=["GET"])
@blueprint.response(HTTPStatus.OK, schemas.CustomerAnswerSchema, example=succeeded(CUSTOMER_EXAMPLE))
def get_customer(email: str) -> flask.Response:
    """Find a customer by email address."""
    _check_plain(email)
    customer = access.find_customer_by_email(email)
    return answer(succeeded({"customerId": customer.gateway_ref}))


@blueprint.route("/payment-method", methods=["POST"])
@blueprint.arguments(schemas.CardSchema(), example=CARD_REQUEST)
@blueprint.response(HTTPStatus.OK, schemas.CardAnswerSchema, example=succeeded(CARD_EXAMPLE))
@blueprint.alt_response(
    HTTPStatus.PAYMENT_REQUIRED,
    schema=schemas.DeliveryRefusalSchema,
    description="The card's issuer does not let it be saved",
    example=refusal(ErrorCode.PAYMENT_METHOD_DECLINED, "Your card was declined."),
)
def post_card(body: dict[str, Any]) -> flask.Response:
    """Save a card to a customer."""
    gateway = _gateway()
    access.find_customer(body["customerId"])
    command = SaveCard(customer_id=body["customerId"], token=body["paymentMethodId"])
    saved = save_card(services().sessions, gateway, command, idempotent_request())
    return answer(succeeded(_brief(saved.card)), replayed=saved.replayed)


@blueprint.route("/payment-method-details", methods=["POST"])
@blueprint.arguments(
    schemas.DetailedCardSchema(),
    example={**CARD_REQUEST, "cardholderName": "Ada Lovelace", "isDefault": True},
)
@blueprint.response(HTTPStatus.OK, schemas.DetailedCardAnswerSchema, example=succeeded(DETAILS_EXAMPLE))
@blueprint.alt_response(
    HTTPStatus.PAYMENT_REQUIRED,
    schema=schemas.DeliveryRefusalSchema,
    description="The card's issuer does not let it be saved",
    example=refusal(ErrorCode.PAYMENT_METHOD_DECLINED, "Your card was declined."),
)
def post_card_details(body: dict[str, Any]) -> flask.Response:
    """Save a card to a customer, with its holder's name and whether it is the default."""
    gateway = _gateway()
    access.find_customer(body["customerId"])
    command = SaveCard(
        customer_id=body["customerId"],
        token=body["paymentMethodId"],
        cardholder_name=body["cardholderName"],
        make_default=body["isDefault"],
    )
    saved = save_card(services().sessions, gateway, command, idempotent_request())
    return answer(succeeded(_details(saved.card)), replayed=saved.replayed)


@blueprint.route("/payment-methods/<customer_id>", methods=["GET"])
@blueprint.response(HTTPStatus.OK, schemas.CardListAnswerSchema, example=succeeded([DETAILS_EXAMPLE]))
def get_cards(customer_id: str) -> flask.Response:
    """List a customer's cards: the default, then the newest first."""
    _check_plain(customer_id)
    customer = access.find_customer(canonical(customer_id))
    with reading(services().sessions) as session:
        cards = list_cards(session, customer)
    return answer(succeeded([_details(each) for each in cards]))


@blueprint.route("/payment-method", methods=["DELETE"])
@blueprint.arguments(schemas.CardSchema(), example=CARD_REQUEST)
@blueprint.response(
    HTTPStatus.OK,
    schemas.DeletedAnswerSchema,
    description="It is gone, now or before; the newest remaining card is the default",
    example=succeeded({"success": True, "message": DELETED}),
)
def delete_card(body: dict[str, Any]) -> flask.Response:
    """Remove a customer's card; it can never be charged again."""
    gateway = _gateway()
    access.find_customer(body["customerId"])
    remove_card(services().sessions, gateway, body["customerId"], body["paymentMethodId"])
    return answer(succeeded({"success": True, "message": DELETED}))


def _gateway() -> CustomerGateway:
    gateway = services().customers
    if gateway is None:
        raise RequestRefused(ErrorCode.GATEWAY_NOT_CONFIGURED, NO_KEY)
    return gateway


def _check_plain(name: str) -> None:
    """Nobody is called by control characters, which the database would not even look for."""
    if not is_plain(name):
        raise CustomerNotFound("Customer not found")


def answer(
    body: dict[str, Any],
    status: HTTPStatus = HTTPStatus.OK,
    *,
    replayed: bool = False,
    applied: str | None = None,
    poll: str | None = None,
) -> flask.Response:
    """A response, what it says of the request's Idempotency-Key and Prefer headers, and where to `poll`."""
    response = flask.make_response(flask.jsonify(body), status)
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    if applied:
        response.headers["Preference-Applied"] = applied
    if poll:
        response.headers["Location"] = poll
    return response


def _brief(card: SavedCard) -> dict[str, Any]:
    return {"payment_method_id": card.gateway_ref, "card_last4": card.last4, "card_brand": card.brand}


def _details(card: SavedCard) -> dict[str, Any]:
    month, year = card.exp_month or 0, card.exp_year or 0  # an attached card has both
    return {
        **_brief(card),
        "cardholder_name": card.cardholder_name,
        "expiry_date": f"{month:02}/{year % 100:02}",
        "is_default": card.is_default,
    }
