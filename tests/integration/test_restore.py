"""A database restored from an old backup charges nothing twice: what it has lost is rebuilt first."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest
from psycopg import sql

from payment_worker import deadlines
from payment_worker.invariants import broken
from shared.commands.pause import pause, paused
from shared.commands.restore import lift, mark_restored
from shared.payments import OperationKind, Status
from shared.settings import Settings, load_settings
from tests.accounts import Payer
from tests.api import NOWHERE, Api, api_settings
from tests.books import Books, make_books
from tests.conftest import Servers
from tests.factories import new_uuid, payment_body
from tests.operating import operate
from tests.shop import Shop
from tests.simulator import Simulator
from tests.stripe_process import Running
from tests.tokens import SECRET, bearer

ORDERS: Final = 100
AMOUNT: Final = Decimal("100.00")
SENT_AGAIN: Final = 3  # before anything is rebuilt
DECLINED: Final = Decimal("10.13")


class Restorable(Shop):
    """A shop whose database can be backed up and restored."""

    def __init__(self, settings: Settings, servers: Servers, books: Books) -> None:
        """Open it on this test's own database."""
        variables = {"STRIPE_API_URL": NOWHERE, "JWT_SECRET": SECRET}
        super().__init__(Api(api_settings(settings.database_url, settings.redis_url, **variables)), books)
        self.books = books
        self._servers = servers
        self._name = settings.database_url.rpartition("/")[2]
        self.backup = f"backup_{uuid.uuid4().hex}"

    def back_up(self) -> datetime:
        """Copy the database; return when that was begun."""
        taken_at = datetime.now(UTC)
        self._copy(self._name, self.backup)
        return taken_at

    def restore(self) -> None:
        """Put the copy in the place of the database."""
        self._servers.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self._name)))
        self._copy(self.backup, self._name)

    def close(self) -> None:
        """Close the connections, and drop the copy."""
        self.api.close()
        self._servers.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.backup))
        )

    def _copy(self, name: str, copy: str) -> None:
        """A database can be a template only while nobody is connected to it."""
        for engine in (self.bench.engine, self.api.services.sessions.kw["bind"]):
            engine.dispose()
        identifiers = sql.Identifier(copy), sql.Identifier(name)
        self._servers.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*identifiers))


@pytest.fixture
def shop(
    environment: dict[str, str], gateway: Running, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Restorable]:
    """A shop with empty books on both sides."""
    monkeypatch.setenv("STRIPE_API_URL", gateway.url)
    monkeypatch.setenv("LOGNAME", "olga")
    Simulator(gateway.url).reset()
    settings = load_settings(("STRIPE_SECRET_KEY",))
    with make_books(settings) as books:
        shop = Restorable(settings, servers, books)
        yield shop
        shop.close()


def heal(taken_at: datetime) -> tuple[int, str]:
    """Do what the marker asks for."""
    return operate("reconcile", "--since", taken_at.isoformat(), "--heal", "--apply")


def mark(taken_at: datetime) -> str:
    """Mark the database as restored; return what was said."""
    status, said = operate("restored", "--backup-taken-at", taken_at.isoformat())
    assert status == 0, said
    return said


def charged(shop: Restorable) -> list[tuple[str, int]]:
    """Every charge that the gateway has made, with what was given back of it."""
    return sorted((each["id"], each["amount_refunded"]) for each in shop.bench.simulator.charges())


def test_a_hundred_orders_of_a_lost_database_are_not_charged_again(shop: Restorable) -> None:
    """Backed up, a hundred charged, restored, marked, healed: the same hundred posted again charge nothing.

    Ids of payments, operations and refunds are the old ones; what clients have sent meanwhile gives way.
    """
    before = shop.pay()
    taken_at = shop.back_up()
    bodies = [payment_body(amount=AMOUNT) for _ in range(ORDERS)]
    first = [shop.start(AMOUNT, **named(body)) for body in bodies]
    shop.work()
    refund = shop.ask(first[0], "refunds", {"amount": 30}).body["refund"]
    dashboard_refund(shop, first[1])
    shop.ask(before, "refunds", {"amount": 10})
    shop.work()
    made = charged(shop)
    operations = {row["id"] for row in shop.api.stored.rows("operation")}
    assert len(made) == ORDERS + 1

    shop.restore()
    assert len(shop.api.stored.rows("payment")) == 1
    assert "next: payment-worker reconcile --since" in mark(taken_at)
    assert set(paused(shop.bench.sessions)) == set(OperationKind)
    ready = shop.api.get("/readyz").body
    assert "--heal --apply" in ready["restored"]
    status, said = operate("resume")
    assert (status, "restored from a backup" in said) == (1, True)
    early = [shop.start(AMOUNT, **named(body)) for body in bodies[:SENT_AGAIN]]
    assert not set(early) & set(first)
    assert [shop.bench.worker.process(each, 0) for each in shop.requested()] == [None] * SENT_AGAIN
    assert charged(shop) == made

    status, said = heal(taken_at)
    assert (status, "the restore is complete" in said) == (0, True), said
    assert paused(shop.bench.sessions) == []
    assert "restored" not in shop.api.get("/readyz").body
    again = [shop.api.post(body) for body in bodies]
    assert [each.status for each in again] == [200] * ORDERS
    assert [each.payment["id"] for each in again] == first
    shop.work()
    assert shop.bench.recover() == []
    assert charged(shop) == made
    assert [shop.payment(each)["status"] for each in early] == [Status.CANCELLED] * SENT_AGAIN
    assert shop.sums(first[0]) == ("partially_refunded", AMOUNT, Decimal(30))
    assert shop.sums(first[1]) == ("partially_refunded", AMOUNT, Decimal(50))
    assert shop.sums(before) == ("partially_refunded", AMOUNT, Decimal(10))
    assert shop.api.get(f"/refunds/{refund['id']}").body["refund"]["status"] == "succeeded"
    assert operations <= {row["id"] for row in shop.api.stored.rows("operation")}
    shop.assert_history_is_whole(first[0])
    timeline = shop.api.get(f"/payments/{first[0]}/timeline").text
    assert "rebuilt from the gateway" in timeline
    assert shop.books.compare() == []


def test_what_was_asked_for_before_the_backup_and_done_after_it_is_not_done_again(shop: Restorable) -> None:
    """Requested here, done there: adopted, however long ago Stripe has forgotten the idempotency key."""
    held = shop.hold()
    waiting = shop.start()
    taken_at = shop.back_up()
    shop.work()
    assert shop.ask(held, "capture").status == 202
    shop.work()
    made = charged(shop)
    shop.restore()
    mark(taken_at)
    assert shop.payment(waiting)["status"] == Status.PENDING
    status, said = heal(taken_at)
    assert status == 0, said
    assert [shop.payment(each)["status"] for each in (waiting, held)] == [Status.SUCCEEDED] * 2
    assert charged(shop) == made
    assert shop.requested() == []


def test_holds_carts_declines_and_waiting_customers_are_rebuilt(shop: Restorable) -> None:
    """A hold can be captured afterwards; a declined order is free again once Stripe has confirmed its end.

    A cart's hold is found by its cart; a waiting customer can still act.
    """
    taken_at = shop.back_up()
    cart, order = new_uuid(), new_uuid()
    held = shop.hold_cart(5_000, cartId=cart)
    assert shop.ask(held, "capture", {"amount": 40, "orderId": order}, Prefer="respond-async").status == 202
    shop.work()
    kept = shop.hold()
    declined_body = payment_body(amount=DECLINED)
    declined = shop.start(DECLINED, **named(declined_body))
    waits = shop.start(paymentMethodId="pm_card_authenticationRequired")
    shop.work()
    shop.restore()
    mark(taken_at)
    status, said = heal(taken_at)
    assert status == 0, said
    assert shop.sums(held) == ("succeeded", Decimal(40), Decimal(0))
    (row,) = [row for row in shop.api.stored.rows("payment") if str(row["id"]) == held]
    assert (row["cart_id"], row["order_id"]) == (cart, order)
    assert shop.payment(waits)["status"] == Status.REQUIRES_ACTION
    assert shop.payment(declined)["status"] == Status.REQUIRES_ACTION
    assert shop.ask(kept, "capture").status == 202
    deadlines.sweep(shop.bench.worker, 0)
    shop.work()
    assert shop.payment(kept)["status"] == Status.SUCCEEDED
    assert shop.payment(declined)["status"] == Status.CANCELLED
    anew = shop.start(DECLINED, **named(declined_body))
    assert anew != declined


def test_an_accounts_payment_that_was_processed_after_the_backup_is_not_charged_again(
    shop: Restorable,
) -> None:
    """Recorded here, charged there: its charge is rebuilt under its old id, and processing it is refused."""
    ada = Payer(shop.api, bearer("ada"))
    paid, refunded, declined, unasked = (ada.payment(amount=each) for each in (AMOUNT, AMOUNT, DECLINED, 7))
    taken_at = shop.back_up()
    for each in (paid, refunded, declined):
        assert ada.ask(each, "process", Prefer="respond-async").status == 202
    shop.pay()  # all of it is lost
    assert ada.ask(refunded, "refund", Prefer="respond-async").status == 202
    shop.work()
    made, operations = charged(shop), {row["id"] for row in shop.api.stored.rows("operation")}
    shop.restore()
    assert shop.api.stored.rows("operation") == []
    mark(taken_at)
    status, said = heal(taken_at)
    assert (status, "the restore is complete" in said) == (0, True), said
    deadlines.sweep(shop.bench.worker, 0)
    shop.work()
    assert charged(shop) == made
    words = [ada.status(each).body["result"]["status"] for each in (paid, refunded, declined, unasked)]
    assert words == ["Completed", "Refunded", "Failed", "Pending"]
    assert operations <= {row["id"] for row in shop.api.stored.rows("operation")}
    for each in (paid, refunded, declined):
        assert ada.ask(each, "process").status == 409
        shop.assert_history_is_whole(each)
    assert shop.requested() == []
    assert shop.books.compare() == []
    with shop.bench.sessions() as session:
        assert broken(session.connection(), [row["id"] for row in shop.api.stored.rows("payment")]) == []


def test_an_order_that_was_charged_again_stays_a_break(shop: Restorable) -> None:
    """Resumed by force, charged twice: a person has to decide, and the service stays as it is."""
    taken_at = shop.back_up()
    body = payment_body(amount=AMOUNT)
    lost = shop.pay(AMOUNT, **named(body))
    shop.restore()
    mark(taken_at)
    assert operate("resume", "--force")[0] == 0
    again = shop.pay(AMOUNT, **named(body))
    mark(taken_at)
    status, said = heal(taken_at)
    assert (status, "still restored, and paused" in said) == (3, True), said
    found = shop.books.open()
    assert {str(each.payment_id) for each in found} == {lost}
    assert all(f"the order has payment {again} now" in str(each.repair) for each in found)
    assert set(paused(shop.bench.sessions)) == set(OperationKind)


def test_the_mark_stays_for_a_run_that_is_not_about_it(shop: Restorable) -> None:
    """One that goes back less far, or only proposes; what an operator had paused before stays paused."""
    operate("pause", "--kind", "refund")
    taken_at = shop.back_up() - timedelta(minutes=1)
    shop.restore()
    mark(taken_at)
    assert heal(taken_at + timedelta(seconds=30))[0] == 0
    assert operate("reconcile", "--since", taken_at.isoformat(), "--heal")[0] == 0
    assert len(paused(shop.bench.sessions)) == len(OperationKind)
    assert heal(taken_at)[0] == 0
    assert paused(shop.bench.sessions) == [OperationKind.REFUND]
    status, said = operate("restored", "--backup-taken-at", "2999-01-01")
    assert (status, "future" in said) == (2, True)


def test_what_an_operator_pauses_after_a_restore_stays_paused(shop: Restorable) -> None:
    """The end of a restore lifts its own pause alone, also of a kind that both have halted."""
    sessions = shop.bench.sessions
    mark_restored(sessions, datetime.now(UTC), "olga")
    pause(sessions, [OperationKind.REFUND], "olga")
    with sessions.begin() as session:
        lift(session, "a run")
    assert paused(sessions) == [OperationKind.REFUND]


def named(body: dict[str, Any]) -> dict[str, Any]:
    """What makes an order the same one again."""
    return {"orderId": body["orderId"], "customerId": body["customerId"]}


def dashboard_refund(shop: Restorable, payment_id: str) -> None:
    """Let someone give a part of it back at the dashboard."""
    shop.bench.simulator.act("dashboard/refund", payment_intent=shop.intent(payment_id), amount=5_000)
