"""The contracts: what breaks a client is told from what does not, and the documents fit the code."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
import simplejson

from deploy.contracts.__main__ import agreed, judge
from deploy.contracts.changes import broken, says_so
from payment_worker.asyncapi import document
from shared.command_messages import read_command
from shared.documents import render_json
from shared.events import SCHEMAS, decode, topics
from shared.payments import Announcement, Command, Notice

FOLDER: Final = Path(__file__).parents[2] / "deploy/contracts"
OPENAPI: Final = agreed("openapi")
ASYNCAPI: Final = agreed("asyncapi")
RECEIVED: Final = {*map(str, Command), *map(str, Notice)}
Change = Callable[[dict[str, Any]], object]


def changed(old: dict[str, Any], change: Change) -> dict[str, Any]:
    """Return the document after a change."""
    new = copy.deepcopy(old)
    change(new)
    assert new != old
    return new


def schema(document: dict[str, Any], name: str) -> Any:
    """Return a schema of the OpenAPI document."""
    return document["components"]["schemas"][name]


def payload(document: dict[str, Any], name: str) -> Any:
    """Return the schema of an event's value."""
    return document["components"]["messages"][name]["payload"]


def field(document: dict[str, Any], name: str, key: str) -> Any:
    """Return the schema of a field of the OpenAPI document."""
    return schema(document, name)["properties"][key]


def value(document: dict[str, Any], name: str, key: str) -> Any:
    """Return the schema of a field of an event's value."""
    return payload(document, name)["properties"][key]


# A name that says what is lost, and the change.
BREAKING: list[tuple[str, Change]] = [
    ("/refunds/{refund_id} is gone", lambda d: d["paths"].pop("/refunds/{refund_id}")),
    ("GET /payments is gone", lambda d: d["paths"]["/payments"].pop("get")),
    ("amount is gone", lambda d: schema(d, "Payment")["properties"].pop("amount")),
    ("amount is gone", lambda d: schema(d, "NewPayment")["properties"].pop("amount")),
    ("reservationId is now required", lambda d: schema(d, "NewPayment")["required"].append("reservationId")),
    ("id may now be missing", lambda d: schema(d, "Payment")["required"].remove("id")),
    ("amount may now be null", lambda d: field(d, "Payment", "amount").update(type=["number", "null"])),
    ("no longer accepted as null", lambda d: field(d, "NewPayment", "reservationId").update(type="string")),
    ("credit_card", lambda d: field(d, "NewPayment", "paymentMethod")["enum"].remove("credit_card")),
    ("succeeded", lambda d: field(d, "Payment", "status")["enum"].remove("succeeded")),
    ("has a smaller maxLength", lambda d: field(d, "RefundRequest", "reason").update(maxLength=1)),
    ("no longer answers 202", lambda d: d["paths"]["/payments"]["post"]["responses"].pop("202")),
    ("the header Location is gone",
     lambda d: d["paths"]["/payments"]["post"]["responses"]["202"]["headers"].pop("Location")),
    ("the query parameter limit is gone",
     lambda d: drop(d["paths"]["/payments"]["get"]["parameters"], "limit")),
    ("the header parameter X-Shop is now required",
     lambda d: d["paths"]["/payments"]["get"].setdefault("parameters", []).append(
         {"in": "header", "name": "X-Shop", "required": True, "schema": {"type": "string"}})),
]  # fmt: skip
ADDITIVE: list[Change] = [
    lambda d: d["paths"].update({"/new": d["paths"]["/payments"]}),
    lambda d: schema(d, "Payment")["properties"].update(taxes={"type": "number"}),
    lambda d: schema(d, "Payment")["required"].append("taxes"),
    lambda d: schema(d, "NewPayment")["properties"].update(note={"type": "string"}),
    lambda d: field(d, "NewPayment", "paymentMethod")["enum"].append("cash"),
    lambda d: field(d, "Payment", "status")["enum"].append("on_hold"),
    lambda d: field(d, "RefundRequest", "reason").update(maxLength=5_000),
    lambda d: d["paths"]["/payments"]["post"]["responses"].update({"418": {"description": "a teapot"}}),
    lambda d: d["paths"]["/payments"]["post"].update(summary="other words"),
]
BREAKING_EVENTS: list[tuple[str, Change]] = [
    ("the topic payment-failed is gone", lambda d: d["channels"].pop("payment-failed")),
    ("is now other", lambda d: d["channels"]["payment-failed"].update(address="other")),
    ("keys move", lambda d: d["channels"]["payment-failed"]["bindings"]["kafka"].update(partitions=12)),
    ("the operation receive-refund-payment is gone", lambda d: d["operations"].pop("receive-refund-payment")),
    ("amountMinor is gone", lambda d: payload(d, "payment-succeeded")["properties"].pop("amountMinor")),
    ("orderId may now be missing", lambda d: payload(d, "payment-succeeded")["required"].remove("orderId")),
    ("customerId is now required",
     lambda d: payload(d, "authorize-payment")["required"].append("customerId")),
    ("no longer has the values ['succeeded']",
     lambda d: value(d, "payment-succeeded", "status").update(const="done")),
    ("amount may now be string", lambda d: value(d, "refund-failed", "amount").update(type="string")),
    ("amount is no longer accepted as number",
     lambda d: value(d, "refund-payment", "amount").update(type=["integer", "null"])),
    ("ce_sequence is gone",
     lambda d: d["components"]["messages"]["payment-failed"]["headers"]["properties"].pop("ce_sequence")),
]  # fmt: skip
ADDITIVE_EVENTS: list[Change] = [
    lambda d: d["channels"].update({"new": d["channels"]["payment-failed"]}),
    lambda d: payload(d, "payment-succeeded")["properties"].update(note={"type": "string"}),
    lambda d: payload(d, "authorize-payment")["properties"].update(note={"type": "string"}),
    lambda d: payload(d, "authorize-payment")["required"].remove("currency"),
    lambda d: d["info"].update(description="other words"),
]


def drop(parameters: list[dict[str, Any]], name: str) -> None:
    """Take a parameter away."""
    parameters[:] = [each for each in parameters if each.get("name") != name]


CASES = [(OPENAPI, *each) for each in BREAKING] + [(ASYNCAPI, *each) for each in BREAKING_EVENTS]


@pytest.mark.parametrize(("old", "lost", "change"), CASES, ids=[lost for _, lost, _ in CASES])
def test_what_breaks_a_client_is_refused(old: dict[str, Any], lost: str, change: Change) -> None:
    """It is named; only a greater major version lets it pass, and then it still has to be agreed on."""
    new = changed(old, change)
    assert any(lost in each for each in broken(old, new)), broken(old, new)
    assert "would break" in str(judge("it", old, new))
    new["info"]["version"] = "v2"
    assert says_so(old, new)
    assert "make contracts" in str(judge("it", old, new))


@pytest.mark.parametrize(
    ("old", "change"),
    [(OPENAPI, each) for each in ADDITIVE] + [(ASYNCAPI, each) for each in ADDITIVE_EVENTS],
)
def test_what_only_adds_breaks_nobody(old: dict[str, Any], change: Change) -> None:
    """It has to be agreed on, so that taking it away again is seen."""
    new = changed(old, change)
    assert broken(old, new) == []
    assert "make contracts" in str(judge("it", old, new))
    assert judge("it", new, new) is None


def test_asyncapi_is_valid() -> None:
    """By the AsyncAPI Initiative's schema, which refuses what is none."""
    validator = jsonschema_rs.Draft7Validator(
        simplejson.loads((FOLDER / "asyncapi-3.0.0.schema.json").read_text())
    )
    present = simplejson.loads(render_json(document()))
    assert [each.message for each in validator.iter_errors(present)] == []
    for path, value in (("channels", []), ("operations", {"x": {"action": "shout"}}), ("info", {})):
        assert not validator.is_valid(present | {path: value})


def test_asyncapi_names_every_topic() -> None:
    """Each with what is done there; requests are read by our own worker, commands and notices by us alone."""
    present = document("shop.")
    assert {each["address"] for each in present["channels"].values()} == {f"shop.{name}" for name in topics()}
    actions = {
        (each["channel"]["$ref"].rpartition("/")[2], each["action"])
        for each in present["operations"].values()
    }
    assert {name for name, action in actions if action == "send"} == set(topics()) - RECEIVED
    requests = {each for each in Announcement if each.endswith("-requested")}
    assert {name for name, action in actions if action == "receive"} == {
        *RECEIVED,
        *map(str, requests),
    }


@pytest.mark.parametrize("name", sorted(topics()))
def test_examples_are_what_the_code_takes(name: str) -> None:
    """Headers and values fit the schemas beside them, and the service's own reading."""
    message = document()["components"]["messages"][name]
    (example,) = message["examples"]
    for part in ("headers", "payload"):
        jsonschema_rs.validate(message[part], example[part])
    headers = [(key, value.encode()) for key, value in example["headers"].items()]
    raw = render_json(example["payload"]).encode()
    if name in set(SCHEMAS):
        event = decode(headers, raw)
        assert (event.type, message["bindings"]["kafka"]["key"]["format"]) == (name, "uuid")
        assert not set(dict(headers)) - set(message["headers"]["properties"])
    if name in RECEIVED:
        received = Command(name) if name in set(Command) else Notice(name)
        assert read_command(received, headers, raw, "place").id == example["headers"]["ce_id"]
