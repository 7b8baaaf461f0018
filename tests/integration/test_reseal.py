"""Data at rest: sealed when it is written, read when it is older, and moved over when the key changes."""

import importlib
import json
import pkgutil
from typing import Any

import pytest

import shared
from payment_worker.commands import Desk
from payment_worker.reseal import RESEALED, reseal
from shared.command_messages import read_command
from shared.models import Table
from shared.payments import Command
from shared.sealing import CannotOpen, Sealer
from shared.settings import Settings
from tests.accounts import Payer, account_body
from tests.api import Api, Stored
from tests.delivery import KEY, Delivery
from tests.factories import as_json, new_uuid, payment_body
from tests.integration.conftest import NewApi
from tests.keys import DATA_KEY
from tests.operating import run
from tests.tokens import SECRET, bearer
from tests.worker import Bench, make_bench

NEW_KEY = "another key, with which the tests replace the first one"
CARD = "pm_card_mastercard"
EMAIL, NAME, HOLDER = "Katherine.Johnson@shop.example", "Katherine Johnson", "K G Johnson"
READABLE = {
    "payment": ["payment_method_id"],
    "operation": ["request"],
    "customer": ["email", "name"],
    "saved_card": ["token", "cardholder_name"],
}


@pytest.fixture
def api(new_api: NewApi, settings: Settings) -> Api:
    """Return an API that can reach the simulator and gives tokens."""
    return new_api(STRIPE_API_URL=settings.stripe_api_url, STRIPE_SECRET_KEY=KEY, JWT_SECRET=SECRET)


class Person:
    """A customer with a saved card, an account, and a payment that is under way."""

    def __init__(self, api: Api, bench: Bench) -> None:
        """Make all of it."""
        shop = Delivery(api)
        self.customer_id = shop.customer(email=EMAIL, name=NAME)
        self.card_id = shop.card(self.customer_id, CARD, cardholderName=HOLDER)
        self.account = account_body(email=EMAIL, name=NAME)
        assert Payer(api).user("register", self.account).status == 200
        self.operation_id = bench.order(payment_method_id=CARD)
        bench.attempt(self.operation_id, fault="lost_response")

    def assert_known(self, api: Api, bench: Bench) -> None:
        """Find the customer, the card, the account, and the very parameters that were sent."""
        shop = Delivery(api)
        assert shop.customer(email=EMAIL.upper(), name=NAME) == self.customer_id
        assert shop.card(self.customer_id, CARD) == self.card_id
        assert [each["cardholder_name"] for each in shop.cards(self.customer_id)] == [HOLDER]
        assert Payer(api).login(EMAIL).body["userName"] == NAME
        assert bench.payment(self.operation_id).payment_method_id == CARD
        assert (bench.operation(self.operation_id).request or {})["payment_method"] == CARD


def raw(stored: Stored) -> bytes:
    """Return every value of every table, as it is stored."""
    return b"".join(
        value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
        for table in stored.counts()
        for row in stored.rows(table)
        for value in row.values()
    )


def readable(stored: Stored) -> list[Any]:
    """Return what stands in columns of earlier releases."""
    return [
        row[column]
        for table, columns in READABLE.items()
        for row in stored.rows(table)
        for column in columns
        if row[column] is not None
    ]


def make_older(stored: Stored, bench: Bench, operation_id: Any) -> None:
    """Store everything as a release before the sealing did."""
    request = json.dumps(bench.operation(operation_id).request)
    stored.change("UPDATE operation SET request = %s, request_sealed = NULL", request)
    stored.change("UPDATE payment SET payment_method_id = %s, payment_method_sealed = NULL", CARD)
    stored.change(
        "UPDATE customer SET email = %s, name = %s, email_sealed = NULL, name_sealed = NULL,"
        " email_fingerprint = NULL",
        EMAIL.casefold(),
        NAME,
    )
    stored.change(
        "UPDATE saved_card SET token = %s, cardholder_name = %s, token_sealed = NULL,"
        " token_fingerprint = NULL, cardholder_name_sealed = NULL",
        CARD,
        HOLDER,
    )


def test_what_is_sensitive_cannot_be_read_in_the_database(api: Api, bench: Bench) -> None:
    """Neither tokens, names nor addresses, in any column of any table; a repeat makes nothing twice."""
    person = Person(api, bench)
    person.assert_known(api, bench)
    operator = bearer("ada", role="operator")
    assert api.post_async(payment_body(paymentMethodId=CARD), **operator).status == 202
    value = as_json({"cartId": new_uuid(), "amount": 100, "currency": "USD", "paymentMethodId": CARD})
    asked = read_command(Command.AUTHORIZE_PAYMENT, [], value.encode(), "carts/0/0")
    assert Desk(bench.sessions, bench.settings).carry_out(asked) is None
    stored = raw(api.stored)
    assert person.customer_id.encode() in stored
    assert b"authorize-payment" in stored
    assert b"POST /payments" in stored
    for secret in (CARD, EMAIL, EMAIL.casefold(), NAME, HOLDER):
        assert secret.encode() not in stored
    assert readable(api.stored) == []
    assert {name: api.stored.counts()[name] for name in ("customer", "saved_card")} == {
        "customer": 1, "saved_card": 1,
    }  # fmt: skip


def test_what_an_earlier_release_stored_is_read_and_moved_over(api: Api, bench: Bench) -> None:
    """It is found and used as it is; reseal moves it, once, and an operation under way goes on."""
    person = Person(api, bench)
    make_older(api.stored, bench, person.operation_id)
    assert len(readable(api.stored)) == 6
    person.assert_known(api, bench)
    assert api.stored.counts()["customer"] == api.stored.counts()["saved_card"] == 1
    counted: dict[str, int] = {}
    sealer = Sealer(DATA_KEY)
    assert reseal(bench.sessions, sealer, counted.__setitem__, dry_run=True) == 4
    assert len(readable(api.stored)) == 6
    assert reseal(bench.sessions, sealer, counted.__setitem__) == 4
    assert counted == {"payment": 1, "operation": 1, "customer": 1, "saved_card": 1, "account": 0}
    assert readable(api.stored) == []
    assert reseal(bench.sessions, sealer, counted.__setitem__) == 0
    person.assert_known(api, bench)
    bench.make_due(person.operation_id)
    bench.recover()
    assert bench.payment(person.operation_id).status == "succeeded"
    assert len(bench.successes(person.operation_id)) == 1


def test_the_key_before_is_needed_for_nothing_after_a_reseal(
    api: Api, bench: Bench, new_api: NewApi, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then nothing can be read with the new key alone; afterwards everything is, by API and worker."""
    person = Person(api, bench)
    given = {"STRIPE_API_URL": settings.stripe_api_url, "STRIPE_SECRET_KEY": KEY, "JWT_SECRET": SECRET}
    with pytest.raises(CannotOpen):
        reseal(bench.sessions, Sealer(NEW_KEY), lambda *_: None)
    monkeypatch.setenv("DATA_KEY", NEW_KEY)
    refused = run("reseal")
    assert (refused.returncode, "DATA_KEY_PREVIOUS" in refused.stderr) == (1, True)
    monkeypatch.setenv("DATA_KEY_PREVIOUS", DATA_KEY)
    for arguments, count in ((["--dry-run"], 5), ([], 5), ([], 0)):
        done = run("reseal", *arguments)
        assert (done.returncode, done.stdout.splitlines()[-1].partition(" ")[0]) == (0, str(count)), (
            done.stderr
        )
    after = Settings(**{**vars(settings), "data_key": NEW_KEY, "data_key_previous": ""})
    with make_bench(after) as changed:
        person.assert_known(new_api(DATA_KEY=NEW_KEY, **given), changed)


def test_every_sealed_column_is_moved_over() -> None:
    """One that is forgotten would need the key before for as long as its rows stay."""
    for module in pkgutil.iter_modules(shared.__path__):
        if module.name.startswith("models"):
            importlib.import_module(f"shared.{module.name}")
    stored = {
        f"{table}.{column.name}"
        for table in Table.metadata.tables.values()
        for column in table.columns
        if "sealed" in column.name
    }
    moved = {f"{each.model.__tablename__}.{value.sealed.key}" for each in RESEALED for value in each.values}
    assert moved == stored


def test_operators_commands_need_no_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they show is not sealed; nothing sealed is shown in its place."""
    operation_id = bench.order(payment_method_id=CARD)
    bench.attempt(operation_id)
    monkeypatch.delenv("DATA_KEY")
    shown = run("show", str(bench.payment(operation_id).id))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "pm_" not in shown.stdout + shown.stderr
