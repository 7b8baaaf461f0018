"""The whole life of payments: holds, captures, voids, refunds, 3-D Secure, the dashboard, saved cards."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal

import requests

from deploy.local.demo.orders import Case, Kind
from deploy.local.demo.stage import Stage
from deploy.local.ordering import TIMEOUT_S, Answer, Order

HELD, ACT, PAID = "payment-authorized", "payment-action-required", "payment-succeeded"
BACK = "refund-succeeded"
MANUAL = {"captureMethod": "manual"}
CHALLENGED = {"paymentMethodId": "pm_card_threeDSecure2Required", "returnUrl": "https://shop.example/back"}
PART = Decimal("60.00")
FIRST_BACK, SECOND_BACK = Decimal("30.00"), Decimal("20.00")
AT_DASHBOARD = Decimal("25.00")
CENTS = 100
WEBHOOK_TAKES_S = 1.4  # the inbox is looked into every second


def whole_life() -> Kind:
    """One order for each way that a payment can go; the scripts below play them, in this order."""
    return Kind(
        title="The whole life",
        about="holds, refunds, 3-D Secure, Stripe's dashboard and its webhooks",
        cases=[
            Case(
                order=Order(amount=Decimal("100.00"), details=MANUAL),
                label="held, 60.00 captured",
                captured=PART,
                events=(HELD, PAID),
            ),
            Case(
                order=Order(amount=Decimal("90.00"), currency="EUR", details=MANUAL),
                label="held, then void",
                expected="cancelled",
                events=(HELD, "payment-cancelled"),
            ),
            Case(
                order=Order(amount=Decimal("80.00")),
                label="refunds: 30.00 and 20.00",
                expected="partially_refunded",
                captured=Decimal("80.00"),
                refunded=FIRST_BACK + SECOND_BACK,
                events=(PAID, BACK, BACK),
            ),
            Case(
                order=Order(amount=Decimal("70.00"), details=CHALLENGED),
                label="3-D Secure, by webhook",
                events=(ACT, PAID),
            ),
            Case(
                order=Order(amount=Decimal("65.00")),
                label="25.00 back by dashboard",
                expected="partially_refunded",
                captured=Decimal("65.00"),
                refunded=AT_DASHBOARD,
                events=(PAID, BACK),
            ),
            Case(order=Order(amount=Decimal("55.00")), label="saved card, off session"),
        ],
    )


def live(stage: Stage, kind: Kind) -> None:
    """Play all scripts at once, each on its order, with Stripe's webhooks switched on."""
    stage.stripe.webhooks(f"{stage.stack.endpoints.api_url}/webhooks/stripe", stage.webhook_secret)
    stage.screen.say("Stripe sends signed webhooks from here on")
    with ThreadPoolExecutor(len(SCRIPTS)) as pool:
        played = [pool.submit(script, stage, case) for script, case in zip(SCRIPTS, kind.cases, strict=True)]
    for each in played:
        each.result()


def capture_in_part(stage: Stage, case: Case) -> None:
    """Hold, then take a part; Stripe releases the rest."""
    payment_id = _pay(stage, case)
    case.answers.append(_ask(stage, f"{payment_id}/capture", amount=PART))


def void(stage: Stage, case: Case) -> None:
    """Hold, then let go."""
    payment_id = _pay(stage, case)
    case.answers.append(_ask(stage, f"{payment_id}/cancel", reason="out of stock"))


def refund_twice(stage: Stage, case: Case) -> None:
    """Charge, then give back a part and another part."""
    payment_id = _pay(stage, case)
    for amount in (FIRST_BACK, SECOND_BACK):
        case.answers.append(_ask(stage, f"{payment_id}/refunds", amount=amount))


def authenticate(stage: Stage, case: Case) -> None:
    """Charge a card whose bank asks its holder, who says yes; a webhook tells us, for we do not just ask."""
    _pay(stage, case)
    order_id = case.order.order_id
    stage.until(
        lambda: stage.database.left_alone_s(order_id) > WEBHOOK_TAKES_S,
        "recovery leaves the payment alone for a while",
    )
    stage.stripe.authenticate(_intent(stage, case))
    _wait_for(stage, case)


def refund_at_dashboard(stage: Stage, case: Case) -> None:
    """Charge; then somebody gives back a part at Stripe's dashboard, without telling us."""
    _pay(stage, case)
    stage.stripe.refund_at_dashboard(_intent(stage, case), int(AT_DASHBOARD * CENTS))
    _wait_for(stage, case)


def charge_saved_card(stage: Stage, case: Case) -> None:
    """Save a customer's card; charge it while the customer is away."""
    order = case.order
    card = _save_card(stage, order.customer_id)
    case.order = replace(order, details={"paymentMethodId": card, "offSession": True})
    _pay(stage, case)


SCRIPTS: tuple[Callable[[Stage, Case], None], ...] = (
    capture_in_part,
    void,
    refund_twice,
    authenticate,
    refund_at_dashboard,
    charge_saved_card,
)


def _pay(stage: Stage, case: Case) -> str:
    """Send the order and wait for its outcome; return the payment's id."""
    answer = stage.payments.send(case.order, wait=True)
    case.answers.append(answer)
    return answer.payment_id


def _ask(stage: Stage, path: str, **details: object) -> Answer:
    """Ask for what follows on a payment, and wait for its outcome."""
    return stage.payments.command(f"/payments/{path}", details, wait=True)


def _save_card(stage: Stage, customer_id: str) -> str:
    """Save a card to a new customer; return the id by which it can be charged again."""
    url = f"{stage.stack.endpoints.api_url}/payment"
    customer = {"email": f"{customer_id}@shop.example", "customerId": customer_id}
    requests.post(f"{url}/customer", json=customer, timeout=TIMEOUT_S).raise_for_status()
    card = {"customerId": customer_id, "paymentMethodId": "pm_card_visa"}
    saved = requests.post(f"{url}/payment-method", json=card, timeout=TIMEOUT_S)
    saved.raise_for_status()
    return str(saved.json()["data"]["payment_method_id"])


def _intent(stage: Stage, case: Case) -> str:
    """Stripe's id of the payment, as a webhook or the dashboard would name it."""
    _, intent = stage.database.payment(case.order.order_id)
    return intent or ""


def _wait_for(stage: Stage, case: Case) -> None:
    def as_expected() -> bool:
        return stage.database.payment(case.order.order_id)[0] == case.expected

    stage.until(as_expected, f"{case.label}: the payment is {case.expected}")
