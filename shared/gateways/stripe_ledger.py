"""Stripe's books: PaymentIntents, charges and refunds as the reconciliation compares them."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, cast

import stripe

from shared.gateways import GatewayUnavailable
from shared.gateways.ledger import Entry, Page, Standing, Thing
from shared.gateways.stripe_amounts import from_gateway_minor
from shared.gateways.stripe_http import PooledClient
from shared.money import InvalidAmount, UnknownCurrency

PAGE = 100  # as many as Stripe gives
PATHS = {Thing.INTENT: "/v1/payment_intents", Thing.CHARGE: "/v1/charges", Thing.REFUND: "/v1/refunds"}
OUR_IDS = frozenset(
    {"payment_id", "operation_id", "order_id", "cart_id", "customer_id", "reservation_id", "payment_method"}
)
_INTENT_STANDINGS = {
    "succeeded": Standing.DONE,
    "requires_capture": Standing.HELD,
    "canceled": Standing.VOID,
}
_REFUND_STANDINGS = {"succeeded": Standing.DONE, "failed": Standing.FAILED, "canceled": Standing.FAILED}

Document = Mapping[str, Any]


class StripeLedger:
    """Stripe, or a simulator that speaks its language at `api_url`."""

    def __init__(self, secret_key: str, api_url: str = "") -> None:
        """Make a client with one connection; no call is made yet."""
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_url} if api_url else {},
            http_client=PooledClient(1),
            max_network_retries=0,
        )

    def page(self, thing: Thing, since: datetime, until: datetime, after: str | None) -> Page:
        """One page of a list; Stripe counts in whole seconds."""
        created = {"gte": math.floor(since.timestamp()), "lt": math.ceil(until.timestamp())}
        cursor = {"starting_after": after} if after else {}
        answer = self._get(PATHS[thing], created=created, limit=PAGE, **cursor)
        entries = [READ[thing](document) for document in answer["data"]]
        return Page(entries, entries[-1].ref if answer["has_more"] else None)

    def entry(self, thing: Thing, ref: str) -> Entry | None:
        """Retrieve one object."""
        try:
            return READ[thing](self._get(f"{PATHS[thing]}/{ref}"))
        except _Missing:
            return None

    def _get(self, path: str, **parameters: Any) -> dict[str, Any]:
        try:
            answer = self._client.raw_request("get", path, **parameters)
        except stripe.StripeError as error:
            if error.http_status == HTTPStatus.NOT_FOUND and error.code == "resource_missing":
                raise _Missing from error
            raise GatewayUnavailable(f"{type(error).__name__}: {error.http_status}") from error
        return cast("dict[str, Any]", answer.data)


class _Missing(GatewayUnavailable):
    """Stripe has no object of this id."""


def _intent(intent: Document) -> Entry:
    status = str(intent["status"])
    standing = _INTENT_STANDINGS.get(status, Standing.OPEN)
    if status == "requires_payment_method" and intent.get("last_payment_error"):
        standing = Standing.FAILED
    return _entry(
        Thing.INTENT,
        intent,
        standing,
        intent_ref=intent["id"],
        charge_ref=_id_of(intent.get("latest_charge")),
        holds=intent["capture_method"] == "manual",
        customer_ref=_id_of(intent.get("customer")),
        taken_minor=_minor(intent, "amount_received") if standing is Standing.DONE else None,
    )


def _charge(charge: Document) -> Entry:
    status, captured = str(charge["status"]), bool(charge["captured"])
    if status == "succeeded":
        waits = Standing.VOID if charge["refunded"] else Standing.HELD
        standing = Standing.DONE if captured else waits
    else:
        standing = Standing.FAILED if status == "failed" else Standing.OPEN
    # Stripe counts what a capture releases as refunded, too.
    returned = charge["amount_refunded"] - (charge["amount"] - charge["amount_captured"])
    return _entry(
        Thing.CHARGE,
        charge,
        standing,
        intent_ref=_id_of(charge.get("payment_intent")),
        charge_ref=charge["id"],
        taken_minor=_minor(charge, "amount_captured") if captured else None,
        returned_minor=_minor({**charge, "returned": max(0, returned)}, "returned") if captured else None,
    )


def _refund(refund: Document) -> Entry:
    return _entry(
        Thing.REFUND,
        refund,
        _REFUND_STANDINGS.get(str(refund["status"]), Standing.OPEN),
        intent_ref=_id_of(refund.get("payment_intent")),
        charge_ref=_id_of(refund.get("charge")),
    )


READ = {Thing.INTENT: _intent, Thing.CHARGE: _charge, Thing.REFUND: _refund}


def _entry(thing: Thing, document: Document, standing: Standing, **more: Any) -> Entry:
    labels = document.get("metadata") or {}
    return Entry(
        thing=thing,
        ref=document["id"],
        created_at=datetime.fromtimestamp(document["created"], UTC),
        standing=standing,
        status=str(document["status"]),
        currency=str(document["currency"]).upper(),
        amount_minor=_minor(document, "amount"),
        ids={name: str(labels[name]) for name in OUR_IDS & labels.keys()},
        **more,
    )


def _minor(document: Document, name: str) -> int | None:
    """An amount in our minor units; None for what others may charge and we cannot express."""
    try:
        return from_gateway_minor(document[name], document["currency"]).amount_minor
    except (InvalidAmount, UnknownCurrency):
        return None


def _id_of(field: Any) -> str | None:
    """The id of an object that may have come expanded."""
    found = field["id"] if isinstance(field, Mapping) else field
    return None if found is None else str(found)
