"""The orders of the demo: every kind, each with what must become of it."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from deploy.local.demo.rows import OrderRow
from deploy.local.ordering import Answer, Order
from shared.money import Money

DUPLICATES = 50
DECLINED = "failed"


@dataclass(kw_only=True)
class Case:
    """One order: what is special about it, how it must end, and the answers that it got."""

    order: Order
    label: str
    expected: str = "succeeded"
    captured: Decimal | None = None  # what must be taken; None: all of it, or nothing if it must not succeed
    refunded: Decimal = Decimal(0)
    events: tuple[str, ...] = ()  # the topics of what must be announced; (): just the expected end
    fault: str | None = None  # what the simulator does to its first request
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Fill in what most orders have."""
        self.events = tuple(sorted(self.events or (f"payment-{self.expected}",)))
        if self.captured is None:
            self.captured = self.order.amount if self.expected == "succeeded" else Decimal(0)

    @property
    def money(self) -> Money:
        """The amount asked for."""
        return Money.from_decimal(self.order.amount, self.order.currency)

    def row(self) -> OrderRow:
        """The order as the audit compares it."""

        def minor(amount: Decimal) -> int:
            return Money.from_decimal(amount, self.order.currency).amount_minor

        return OrderRow(
            order_id=self.order.order_id,
            amount_minor=self.money.amount_minor,
            captured_minor=minor(self.captured or Decimal(0)),
            refunded_minor=minor(self.refunded),
            currency=self.order.currency,
            expected=self.expected,
            events=self.events,
            answered=frozenset(answer.payment_id for answer in self.answers),
        )


@dataclass(kw_only=True)
class Kind:
    """Orders of one kind, shown together."""

    title: str
    about: str
    cases: list[Case]


def _case(label: str, amount: str, currency: str = "USD", **more: Any) -> Case:
    expected, fault = more.pop("expected", "succeeded"), more.pop("fault", None)
    order = Order(amount=Decimal(amount), currency=currency, details=more)
    return Case(order=order, label=label, expected=expected, fault=fault)


def charged() -> Kind:
    """Orders that simply succeed: currencies of every number of decimals, and several cards."""
    return Kind(
        title="Charged",
        about="currencies of every number of decimals, and several cards",
        cases=[
            _case("US dollars", "150.00"),
            _case("euros", "89.90", "EUR"),
            _case("pounds", "1.00", "GBP"),
            _case("yen: no decimals", "12800", "JPY"),
            _case("dinars: three decimals", "45.500", "KWD"),
            _case("krónur: no decimals", "4900", "ISK"),
            _case("a Mastercard", "19.90", "EUR", paymentMethodId="pm_card_mastercard"),
            _case("an American Express", "64.20", paymentMethodId="pm_card_amex"),
        ],
    )


def declined_by_amount() -> Kind:
    """Amounts for which the simulated bank says no."""
    return Kind(
        title="Declined amounts",
        about="the simulated bank looks at the last two digits",
        cases=[
            _case("card declined", "20.13", expected=DECLINED),
            _case("insufficient funds", "35.66", "EUR", expected=DECLINED),
            _case("amount too large", "999999.99", expected=DECLINED),
            _case("processor timeout", "49.99", expected=DECLINED),
        ],
    )


def declined_by_card() -> Kind:
    """Stripe's test payment methods that are declined whatever the amount."""
    card = "pm_card_chargeDeclined"
    return Kind(
        title="Declined cards",
        about="Stripe's test payment methods",
        cases=[
            _case("declined", "30.00", expected=DECLINED, paymentMethodId=card),
            _case("no funds", "31.00", expected=DECLINED, paymentMethodId=f"{card}InsufficientFunds"),
            _case("expired", "32.00", expected=DECLINED, paymentMethodId=f"{card}ExpiredCard"),
            _case("fraud suspected", "33.00", expected=DECLINED, paymentMethodId=f"{card}Fraudulent"),
            _case(
                "3-D Secure, nobody there",
                "34.00",
                expected=DECLINED,
                paymentMethodId="pm_card_authenticationRequired",
                offSession=True,
            ),
        ],
    )


def gateway_faults() -> Kind:
    """Orders whose first request to Stripe goes wrong, each in another way."""
    return Kind(
        title="Stripe misbehaves",
        about="one fault an order; a timeout or a 500 is unknown, never failed",
        cases=[
            _case("charged, answer lost", "41.00", fault="lost_response"),
            _case("connection reset", "42.00", fault="connection_reset"),
            _case("429, too many requests", "43.00", fault="rate_limit"),
            _case("429, lock timeout", "44.00", fault="lock_timeout"),
            _case("500 although charged", "45.00", fault="error_after"),
            _case("500, nothing charged", "46.00", fault="error_before"),
        ],
    )


def duplicates() -> Kind:
    """One order, sent many times at once."""
    return Kind(
        title="Duplicates",
        about=f"one order sent {DUPLICATES} times at once: every answer names the same payment",
        cases=[_case(f"{DUPLICATES} requests", "75.00")],
    )


def killed_worker() -> Kind:
    """Orders whose charge is under way when the worker dies."""
    about = "kill -9 in mid-charge: the same key asks Stripe again, so nobody pays twice"
    cases = [_case("in mid-charge", f"{51 + n}.00") for n in range(4)]
    return Kind(title="Task worker killed", about=about, cases=cases)


def flushed_valkey() -> Kind:
    """Orders whose wake-ups are lost with Valkey."""
    about = "FLUSHALL while orders wait in it: PostgreSQL still knows what is due"
    cases = [_case("queued", f"{61 + n}.00", "EUR") for n in range(5)]
    return Kind(title="Valkey flushed", about=about, cases=[*cases, _declined_in_between("66.13")])


def killed_broker() -> Kind:
    """Orders that arrive while Kafka is gone."""
    about = "kill -9, its memory is lost: orders are taken, events wait in the outbox"
    cases = [_case("Kafka is down", f"{71 + n}.00", "GBP") for n in range(3)]
    return Kind(title="Broker killed", about=about, cases=[*cases, _declined_in_between("74.66")])


def outage() -> Kind:
    """Orders that are sent while Stripe answers 500 to everything."""
    about = "500 to everything, and each 500 spoils its key: the backlog drains by itself afterwards"
    cases = [_case("Stripe is down", f"{81 + n}.00") for n in range(6)]
    return Kind(title="Stripe down", about=about, cases=cases)


def _declined_in_between(amount: str) -> Case:
    return _case("and a declined one", amount, expected=DECLINED)
