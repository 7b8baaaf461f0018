"""One gateway customer per customer and one default card, however many ask and whatever dies in between."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import psutil
import pytest

from shared.commands import asking
from shared.commands.cards import SaveCard, save_card
from shared.commands.customers import CreateCustomer, create_customer, payer_of
from shared.commands.removal import finish_removals, remove_card
from shared.database import Sessions, connect, make_sessions
from shared.gateways import GatewayUnavailable
from shared.gateways.stripe_customers import StripeCustomers
from shared.payments import InvalidCommand
from shared.sealing import Sealer
from tests.api import Answer, Api, ServedApi, Stored
from tests.delivery import KEY, Delivery, StripeSide, new_email
from tests.integration.conftest import NewApi
from tests.keys import DATA_KEY
from tests.simulator import Simulator
from tests.waiting import LONGEST_S, wait_until

RACERS: Final = 50
SOON_S: Final = 30
SLOW_MS: Final = 3000.0
OVERLAP_MS: Final = 60.0


class Killed(BaseException):
    """The process is gone at this point; nothing after it happens."""


class Mortal:
    """The real adapter, in a process that dies just before or just after its next call of one kind."""

    def __init__(self, inner: StripeCustomers, call: str, *, after: bool) -> None:
        """Die at `call`."""
        self._inner, self._call, self._after = inner, call, after

    def __getattr__(self, name: str) -> Any:
        """Return the adapter's method, deadly or not."""
        method = getattr(self._inner, name)
        return self._deadly(method) if name == self._call else method

    def _deadly(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if self._after:
                method(*arguments)
            raise Killed

        return call


class Watched:
    """The real adapter, noting which of its methods are called and under which keys."""

    def __init__(self, inner: StripeCustomers) -> None:
        """Nothing was called yet."""
        self._inner = inner
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """Return the adapter's method, which notes its call."""
        self.calls.append(name)
        return getattr(self._inner, name)


@pytest.fixture
def api(new_api: NewApi, simulator: Simulator) -> Api:
    """Return an application that reaches the simulator, with connections for many at once."""
    return new_api(STRIPE_API_URL=simulator.url, STRIPE_SECRET_KEY=KEY, DATABASE_POOL_SIZE=20)


@pytest.fixture
def gateway(simulator: Simulator) -> StripeCustomers:
    """Return the real adapter."""
    return StripeCustomers(KEY, simulator.url)


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    """Return sessions on this test's database."""
    engine = connect(database_url, pool_size=4, application="test customers", sealer=Sealer(DATA_KEY))
    yield make_sessions(engine)
    engine.dispose()


def at_once(*calls: Callable[[], Answer]) -> list[Answer]:
    """Make all calls at the same time."""
    with ThreadPoolExecutor(len(calls)) as callers:
        return [each.result() for each in [callers.submit(call) for call in calls]]


def create(email: str) -> CreateCustomer:
    """Return the command that creates a customer."""
    return CreateCustomer(email=email, name=None, client_customer_id=None, owner="test")


def test_fifty_at_once_make_one_customer(
    shop: Delivery, api: Api, stripe: StripeSide, simulator: Simulator
) -> None:
    """Fifty requests for one email address get the same id; one row, one customer at Stripe."""
    email = new_email()
    simulator.latency(OVERLAP_MS, 2 * OVERLAP_MS)
    answers = at_once(*[lambda: shop.create(email=email)] * RACERS)
    assert {each.status for each in answers} == {201}
    (at_stripe,) = stripe.customers(email)
    assert {each.body["data"]["customerId"] for each in answers} == {at_stripe["id"]}
    assert api.stored.counts()["customer"] == 1


def test_fifty_at_once_save_one_card(
    shop: Delivery, api: Api, stripe: StripeSide, simulator: Simulator
) -> None:
    """Fifty requests for one test token, which Stripe would make fifty cards of, save one."""
    customer = shop.customer()
    simulator.latency(OVERLAP_MS, 2 * OVERLAP_MS)
    answers = at_once(*[lambda: shop.save(customer, "pm_card_visa")] * RACERS)
    assert {each.status for each in answers} == {200}
    assert stripe.cards(customer) == {each.body["data"]["payment_method_id"] for each in answers}
    assert len(stripe.cards(customer)) == api.stored.counts()["saved_card"] == 1
    assert shop.default(customer) == stripe.default(customer)


def test_racing_defaults_leave_one_which_stripe_knows(
    shop: Delivery, stripe: StripeSide, simulator: Simulator
) -> None:
    """Ten cards that all want to be the default, while others are deleted: one is, here and at Stripe."""
    customer = shop.customer()
    old = [shop.card(customer, stripe.new_card()) for _ in range(5)]
    new = [stripe.new_card() for _ in range(10)]
    simulator.latency(OVERLAP_MS, 4 * OVERLAP_MS)
    saves = [lambda card=card: shop.save_details(customer, card, isDefault=True) for card in new]
    deletes = [lambda card=card: shop.delete(customer, card) for card in old]
    answers = at_once(*saves, *deletes)
    assert {each.status for each in answers} == {200}
    assert {each["payment_method_id"] for each in shop.cards(customer)} == set(new) == stripe.cards(customer)
    assert shop.default(customer) == stripe.default(customer)


def test_deleting_all_at_once_leaves_none(shop: Delivery, stripe: StripeSide) -> None:
    """Every card is deleted twice at the same time: none is left here or there, and all are told so."""
    customer = shop.customer()
    cards = [shop.card(customer, stripe.new_card()) for _ in range(10)]
    answers = at_once(*[lambda card=card: shop.delete(customer, card) for card in cards * 2])
    assert {each.status for each in answers} == {200}
    assert shop.cards(customer) == []
    assert stripe.cards(customer) == set()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_death_while_creating_is_made_good(
    sessions: Sessions,
    gateway: StripeCustomers,
    stripe: StripeSide,
    after: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Whether Stripe had made the customer or not, the repeat ends with exactly one."""
    email = new_email()
    with suppress(Killed):
        create_customer(sessions, Mortal(gateway, "create_customer", after=after), create(email))
    assert len(stripe.customers(email)) == int(after)
    made = create_customer(sessions, gateway, create(email))
    assert [each["id"] for each in stripe.customers(email)] == [made.customer.gateway_ref]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", ["attach", "set_default"])
def test_a_death_while_saving_is_made_good(
    shop: Delivery,
    sessions: Sessions,
    gateway: StripeCustomers,
    stripe: StripeSide,
    call: str,
    after: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """The repeat ends with one card, which is the default on both sides; never is one shown without."""
    customer = shop.customer()
    command = SaveCard(customer_id=customer, token="pm_card_visa")
    with suppress(Killed):
        save_card(sessions, Mortal(gateway, call, after=after), command)
    assert [each["is_default"] for each in shop.cards(customer)] in ([], [True])
    saved = save_card(sessions, gateway, command)
    assert stripe.cards(customer) == {saved.card.gateway_ref}
    assert shop.default(customer) == stripe.default(customer) == saved.card.gateway_ref


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", ["detach", "set_default"])
def test_a_death_while_deleting_is_made_good(
    shop: Delivery,
    sessions: Sessions,
    gateway: StripeCustomers,
    stripe: StripeSide,
    call: str,
    after: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """At once the card is not shown and cannot be charged; the repeat takes it from Stripe too."""
    customer = shop.customer()
    remains, card = (shop.card(customer, stripe.new_card()) for _ in range(2))
    shop.save_details(customer, card, isDefault=True)
    with suppress(Killed):
        remove_card(sessions, Mortal(gateway, call, after=after), customer, card)
    assert shop.default(customer) == remains
    with sessions() as session, pytest.raises(InvalidCommand, match="paymentMethodId"):
        payer_of(session, customer, card)
    remove_card(sessions, gateway, customer, card)
    assert stripe.cards(customer) == {remains}
    assert stripe.default(customer) == remains


def test_a_removal_that_nobody_repeats_is_finished(
    shop: Delivery, api: Api, sessions: Sessions, gateway: StripeCustomers, stripe: StripeSide
) -> None:
    """The worker has Stripe let go of the card some time later; a removal under way is left alone."""
    customer = shop.customer()
    remains, card = (shop.card(customer, stripe.new_card()) for _ in range(2))
    shop.save_details(customer, card, isDefault=True)
    with suppress(Killed):
        remove_card(sessions, Mortal(gateway, "detach", after=False), customer, card)
    assert finish_removals(sessions, gateway) == 0
    assert stripe.cards(customer) == {remains, card}
    api.stored.change("UPDATE saved_card SET removed_at = removed_at - interval '2 minutes'")
    assert finish_removals(sessions, gateway) == 1
    assert stripe.cards(customer) == {remains}
    assert stripe.default(customer) == remains
    assert finish_removals(sessions, gateway) == 0


def test_a_killed_process_leaves_nothing_half_done(
    database_url: str, redis_url: str, simulator: Simulator, stripe: StripeSide
) -> None:
    """The API is killed with -9 while Stripe makes the customer; another one, asked again, completes it."""
    email, stored = new_email(), Stored(database_url)
    given = {
        "STRIPE_API_URL": simulator.url,
        "STRIPE_SECRET_KEY": KEY,
        "WEB_WORKERS": 1,
        "LOG_FORMAT": "json",
    }
    doomed = ServedApi(database_url, redis_url, **given)
    simulator.latency(SLOW_MS, SLOW_MS + 1)
    with ThreadPoolExecutor(1) as caller:
        lost = caller.submit(Delivery(doomed).create, email=email)
        wait_until(lambda: stored.counts().get("customer"), SOON_S, "the customer's row")
        server = psutil.Process(doomed.process.pid)
        for each in [server, *server.children(recursive=True)]:
            os.kill(each.pid, signal.SIGKILL)
        assert lost.exception(LONGEST_S)
    doomed.process.wait(LONGEST_S)
    doomed._port.close()
    simulator.latency(None, None)
    another = ServedApi(database_url, redis_url, **given)
    try:
        made = Delivery(another).customer(email=email)
    finally:
        another.close()
    assert [each["id"] for each in stripe.customers(email)] == [made]


@pytest.mark.parametrize(
    ("fault", "made_by"), [("lost_response", 1), ("error_after", 1), ("error_before", 2)]
)
def test_an_unclear_answer_is_503_and_then_cleared_up(
    shop: Delivery, api: Api, stripe: StripeSide, simulator: Simulator, fault: str, made_by: int
) -> None:
    """After a lost answer the key tells; a key that replays a 500 is given up when Stripe has nothing."""
    email = new_email()
    simulator.fault(fault)
    assert shop.create(email=email).status == 503
    customer = shop.customer(email=email)
    assert [each["id"] for each in stripe.customers(email)] == [customer]
    (row,) = api.stored.rows("customer")
    assert row["key_number"] == made_by
    card = stripe.new_card()
    simulator.fault(fault)
    assert shop.save(customer, card).status == 503
    assert shop.save(customer, card).status == 200
    assert stripe.cards(customer) == {card}
    (saved,) = api.stored.rows("saved_card")
    assert saved["key_number"] == made_by


def test_an_old_key_is_not_trusted(
    shop: Delivery, api: Api, stripe: StripeSide, simulator: Simulator
) -> None:
    """A day later Stripe has forgotten the key: what it had made is looked for, not made again."""
    email = new_email()
    simulator.fault("lost_response")
    assert shop.create(email=email).status == 503
    api.stored.change("UPDATE customer SET key_since = key_since - interval '24 hours'")
    watched = Watched(api.services.customers)  # type: ignore[arg-type]
    made = create_customer(api.services.sessions, watched, create(email))
    assert watched.calls == ["find_customer"]
    assert [each["id"] for each in stripe.customers(email)] == [made.customer.gateway_ref]


def test_too_often_is_asked_again(shop: Delivery, stripe: StripeSide, simulator: Simulator) -> None:
    """Who is told that Stripe is asked too often tries again within the request."""
    email = new_email()
    simulator.fault("rate_limit", times=2)
    assert shop.create(email=email).status == 201
    assert len(stripe.customers(email)) == 1


def test_no_connection_is_held_while_stripe_answers(
    shop: Delivery, api: Api, gateway: StripeCustomers
) -> None:
    """At each call of the gateway the pool has all its connections."""
    held: list[int] = []

    class Counting(Watched):
        """The real adapter, which looks at the pool at each call."""

        def __getattr__(self, name: str) -> Any:
            held.append(api.pool.checkedout())
            return super().__getattr__(name)

    sessions = api.services.sessions
    made = create_customer(sessions, Counting(gateway), create(new_email()))
    customer = str(made.customer.gateway_ref)
    saved = save_card(sessions, Counting(gateway), SaveCard(customer_id=customer, token="pm_card_visa"))
    remove_card(sessions, Counting(gateway), customer, str(saved.card.gateway_ref))
    assert held == [0, 0, 0, 0]


def test_patience_ends(
    sessions: Sessions, gateway: StripeCustomers, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe that is always too busy is unavailable, and the row waits for the repeat."""
    monkeypatch.setattr(asking, "PATIENCE_S", 0.5)
    simulator.fault("lock_timeout", times=10_000)
    with pytest.raises(GatewayUnavailable):
        create_customer(sessions, gateway, create(new_email()))
