"""What must hold at the neighbours' doors, each as a function of its own, as the README promises it."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import simplejson

from shared.notifications import ORDER_SERVICE
from tests.simulation.complaints import COMPLAINTS
from tests.simulation.doors import Doors
from tests.simulation.invariants import DEAD, HOLDS_MONEY, PAID
from tests.simulation.neighbours import OUR_TOKEN, Subscriber
from tests.simulation.notices import Subscription
from tests.simulation.notifying import CALLERS_TOKEN, TOKEN_LASTS
from tests.simulation.view import Row, View, rows_of

TABLES: Final = {
    "reservation": "id",
    "notification_endpoint": "id",
    "notification_event": "position",
    "notification_delivery": "endpoint_id, event_id",
    "order_callback": "payment_id",
}
OUTCOMES: Final = {"payment-succeeded", "payment-failed", "payment-cancelled"}
INITIATED, SUBSCRIBED = "payment-initiated", "user-subscription-started"
GIVEN_UP_AFTER: Final = timedelta(days=3)
DISABLED: Final = "notification-endpoint-disabled"


@dataclass(frozen=True)
class Sight:
    """One moment: what can be seen of everything, and beside it of the doors."""

    view: View
    doors: Doors
    reservations: list[Row]
    endpoints: dict[uuid.UUID, Row]
    news: list[Row]
    deliveries: list[Row]
    callbacks: list[Row]

    def announced(self) -> Iterator[Row]:
        """What the histories have announced."""
        for entries in self.view.timeline.values():
            yield from (each for each in entries if each["announced_id"])

    def payments(self, name: str) -> dict[str, list[Row]]:
        """The payments that have something of this name, by it."""
        found: dict[str, list[Row]] = {}
        for row in self.view.payments.values():
            if row[name]:
                found.setdefault(row[name], []).append(row)
        return found

    def is_shown(self, payment_id: uuid.UUID) -> bool:
        """Whether a person is shown something of it."""
        return any(each["needs_review"] for each in self.view.operations_of(payment_id))

    def kept_minor(self, payment_id: uuid.UUID) -> int:
        """What the gateway has taken or holds for a payment, and has not given back."""
        return sum(
            each["amount"] if each["status"] == "requires_capture" else self.view.net_minor(each)
            for each in self.view.intents_of(payment_id)
            if each["status"] in HOLDS_MONEY
        )

    def endpoint(self, subscriber: Subscriber) -> Row | None:
        """A subscriber's row."""
        return next((row for row in self.endpoints.values() if row["url"] == subscriber.url), None)


Invariant = Callable[[Sight], Iterator[str]]


# --- at every moment ---


def a_notice_makes_one_payment(sight: Sight) -> Iterator[str]:
    """A message makes at most one payment, however often it comes; only those that ask for one make any."""
    begun: Counter[str] = Counter()
    for entries in sight.view.timeline.values():
        if entries[0]["actor"] == "kafka":
            begun[str(entries[0]["correlation_id"])] += 1
    for message_id, sent in sight.doors.notices.sent.items():
        if begun[message_id] > (1 if sent.topic in {INITIATED, SUBSCRIBED} else 0):
            yield f"{sent.topic} {message_id} has made {begun[message_id]} payments"


def a_subscription_is_charged_once(sight: Sight) -> Iterator[str]:
    """At most one charge ever for each subscription, of a price that was told for it; none for a trial."""
    told: dict[str, list[Subscription]] = {}
    for each in sight.doors.notices.subscriptions:
        told.setdefault(each.id, []).append(each)
    for subscription_id, payments in sight.payments("subscription_id").items():
        prices = {each.price_minor for each in told[subscription_id] if not each.trial_days}
        if wrong := [each["amount_minor"] for each in payments if each["amount_minor"] not in prices]:
            yield f"the subscription {subscription_id} is charged {wrong}, its price is one of {prices}"
        if sum(each["status"] in PAID for each in payments) > 1:
            yield f"the subscription {subscription_id} was charged twice"
        if sum(each["status"] not in DEAD for each in payments) > 1:
            yield f"the subscription {subscription_id} has two live payments"


def the_catalog_hears_once(sight: Sight) -> Iterator[str]:
    """A payment that came from the catalog is told as processed exactly once, when its outcome is known."""
    for payment_id, payment in sight.view.payments.items():
        entries = sight.view.timeline[payment_id]
        processed = [each for each in entries if each["announced_type"] == "payment-processed"]
        outcomes = [each for each in entries if each["announced_type"] in OUTCOMES]
        if len(processed) != (len(outcomes) if payment["outcome_topic"] else 0):
            yield f"{payment_id} has {len(outcomes)} outcomes, and is told {len(processed)} times"
        for outcome, told in zip(outcomes, processed, strict=False):
            is_paid = outcome["announced_type"] == "payment-succeeded"
            if told["announced_payload"]["status"] != ("confirmed" if is_paid else "failed"):
                yield f"{payment_id} is told as {told['announced_payload']['status']}"


def what_is_over_stays_over(sight: Sight) -> Iterator[str]:
    """Once a reservation's end was dealt with it is over, and nobody can pay for it any more."""
    statuses = {row["id"]: row["status"] for row in sight.reservations}
    paid = sight.payments("reservation_id")
    for reservation_id, before in sight.doors.desk.ended.items():
        if statuses[reservation_id] != "expired":
            yield f"the reservation {reservation_id} is {statuses[reservation_id]} after its end"
        for payment in paid.get(reservation_id, []):
            if payment["id"] not in before:
                yield f"{payment['id']} was made after the end of {reservation_id}"
            elif before[payment["id"]][0] not in PAID | DEAD and not _is_given_up(sight, payment):
                yield f"{payment['id']} was not paid at the end of {reservation_id}, and is not given up"


def _is_given_up(sight: Sight, payment: Row) -> bool:
    is_captured = any(each["kind"] == "capture" for each in sight.view.operations_of(payment["id"]))
    return payment["cancel_requested_at"] is not None or payment["status"] in DEAD or is_captured


def webhooks_come_in_order(sight: Sight) -> Iterator[str]:
    """A subscriber hears of a payment in its order; what it asked for again may come late."""
    sequences = {each["announced_id"]: each["sequence"] for each in sight.announced()}
    for subscriber in sight.doors.town.subscribers:
        newest: dict[str, int] = {}
        seen: set[uuid.UUID] = set()
        for number, told in enumerate(subscriber.told):
            if number in subscriber.again:
                newest.clear()
            payment_id, sequence = told.said["data"]["paymentId"], sequences.get(told.event_id, 0)
            if told.event_id not in seen and sequence < newest.get(payment_id, 0):
                yield f"{subscriber.url} hears {sequence} of {payment_id} after {newest[payment_id]}"
            newest[payment_id] = max(sequence, newest.get(payment_id, 0))
            seen.add(told.event_id)


def webhooks_say_what_happened(sight: Sight) -> Iterator[str]:
    """A webhook is signed, wanted, and says of its event what Kafka says."""
    known = {each["announced_id"]: each for each in sight.announced()}
    for subscriber in sight.doors.town.subscribers:
        yield from subscriber.problems
        for told in subscriber.told:
            entry = known.get(told.event_id)
            if entry is None:
                yield f"{subscriber.url} hears of {told.event_id}, which is in no history"
                continue
            said = entry["announced_type"], _plain(entry["announced_payload"])
            if said != (told.said["type"], _plain(told.said["data"])):
                yield f"{subscriber.url} hears {told.said}, which is not {said}"
            if subscriber.wanted and entry["announced_type"] not in subscriber.wanted:
                yield f"{subscriber.url} hears {entry['announced_type']}, which it does not want"


def _plain(payload: Any) -> Any:
    return simplejson.loads(simplejson.dumps(payload, use_decimal=True), use_decimal=True)


def delivered_was_taken(sight: Sight) -> Iterator[str]:
    """What counts as delivered its receiver has taken; what is given up was tried for three days."""
    taken = {(ORDER_SERVICE, uuid.UUID(each[0])) for each in sight.doors.orders.heard}
    for subscriber in sight.doors.town.subscribers:
        if row := sight.endpoint(subscriber):
            taken |= {(row["id"], each.event_id) for each in subscriber.told if each.heard}
    for row in sight.deliveries:
        name = f"{row['type']} {row['event_id']} for {row['endpoint_id']}"
        if row["state"] == "delivered" and (row["endpoint_id"], row["event_id"]) not in taken:
            yield f"{name} counts as delivered, and nobody has taken it"
        if row["state"] == "exhausted" and (
            not row["last_error"] or row["ended_at"] - row["first_attempt_at"] < GIVEN_UP_AFTER
        ):
            yield f"{name} was given up too soon, or without a reason"


def disabled_for_a_reason(sight: Sight) -> Iterator[str]:
    """An endpoint is disabled by its owner, by 410, or by failing for days; and what we do is announced."""
    said = _disabled(sight)
    for subscriber in sight.doors.town.subscribers:
        row = sight.endpoint(subscriber)
        if row is None:
            continue
        if row["disabled_count"] and not (subscriber.has_been_gone or subscriber.complete_since is None):
            yield f"{subscriber.url} was disabled, and has not failed for long"
        if row["state"] == "disabled" and not row["disabled_reason"]:
            yield f"{subscriber.url} is disabled without a reason"
        if len(said.get(str(row["id"]), ())) != row["disabled_count"]:
            yield f"{subscriber.url} was disabled {row['disabled_count']} times: {said.get(str(row['id']))}"


def _disabled(sight: Sight) -> dict[str, set[str]]:
    """The events that say so, by endpoint: on Kafka, or still on their way."""
    found: dict[str, set[str]] = {}
    for row in sight.view.others:
        found.setdefault(str(row["aggregateid"]), set()).add(str(row["id"]))
    for record in sight.doors.world.broker.ever:
        if record.topic() == DISABLED:
            headers = {name: value.decode() for name, value in record.headers()}
            found.setdefault(headers["ce_subject"], set()).add(headers["ce_id"])
    return found


def callbacks_say_the_outcome(sight: Sight) -> Iterator[str]:
    """The order service hears outcomes of payments that are to be told, in their order, with a good token."""
    known = {str(each["announced_id"]): each for each in sight.announced()}
    orders = {row["payment_id"]: row["order_id"] for row in sight.callbacks}
    newest: dict[str, str] = {}
    seen: set[str] = set()
    for key, order_id, status, token in sight.doors.orders.heard:
        entry = known.get(key)
        if entry is None or orders.get(entry["payment_id"]) != order_id:
            yield f"the order service hears {status} of {order_id} by {key}, which is none of its own"
            continue
        is_paid = entry["announced_type"] == "payment-succeeded"
        if (
            entry["announced_type"] not in OUTCOMES
            or status != f"PAYMENT {'RECEIVED' if is_paid else 'FAILED'}"
        ):
            yield f"the order service hears {status} of {order_id}: {entry['announced_type']}"
        if token not in {f"Bearer {OUR_TOKEN}", f"Bearer {CALLERS_TOKEN}"}:
            yield f"the order service is shown {token}"
        if key not in seen and key < newest.get(order_id, ""):  # ids are in the order of time
            yield f"the order service hears {key} of {order_id} after {newest[order_id]}"
        newest[order_id] = max(key, newest.get(order_id, ""))
        seen.add(key)


# --- once everything has come to rest ---


def every_notice_is_answered(sight: Sight) -> Iterator[str]:
    """Each message was carried out or refused, once; a refusal is told, always under the same event id."""
    inbox = {(row["source"], row["message_id"]): row for row in sight.view.inbox}
    answers: dict[str, set[tuple[str, str]]] = {}
    for record in sight.doors.world.broker.ever:
        if record.topic() == "payment-rejected":
            said = simplejson.loads(record.value() or b"")
            headers = dict(record.headers())
            answer = headers["ce_id"].decode(), said["errorCode"]
            answers.setdefault(said["commandId"], set()).add(answer)
        elif record.topic() == "payments-dead-letter":
            yield f"buried: {dict(record.headers())}"
    for message_id, sent in sight.doors.notices.sent.items():
        row = inbox.get((sent.topic, message_id))
        if row is None:
            yield f"{sent.topic} {message_id} was lost"
        elif len(answers.get(message_id, ())) != (1 if row["error"] else 0):
            became = row["error"] or "taken"
            yield f"{sent.topic} {message_id} ({became}) was answered {answers.get(message_id)}"
        elif sent.topic == INITIATED and not row["error"]:
            payment = sight.view.payments.get(row["payment_id"], {})
            if payment.get("order_id") != sent.said["orderId"]:
                yield f"{sent.topic} {message_id} was taken, and its order has no payment"


def an_ended_reservation_keeps_no_money(sight: Sight) -> Iterator[str]:
    """What was not paid when a reservation's end was dealt with keeps no money, or a person is shown it."""
    for reservation_id, before in sight.doors.desk.ended.items():
        for payment_id, (status, _) in before.items():
            if status not in PAID and sight.kept_minor(payment_id) and not sight.is_shown(payment_id):
                kept = sight.kept_minor(payment_id)
                yield f"{payment_id} keeps {kept}, and was {status} at the end of {reservation_id}"


def a_subscription_is_kept_once(sight: Sight) -> Iterator[str]:
    """However often a subscription was told, the money of one charge is all that stays with us."""
    for subscription_id, payments in sight.payments("subscription_id").items():
        kept = [each["id"] for each in payments if sight.kept_minor(each["id"])]
        if len(kept) > 1:
            yield f"the subscription {subscription_id} was paid by {kept}"


def everybody_is_told(sight: Sight) -> Iterator[str]:
    """Nothing waits but for disabled endpoints, and whoever could not be disabled has heard everything."""
    for row in sight.news:
        yield f"{row['type']} {row['event_id']} was turned into no delivery"
    for row in sight.deliveries:
        endpoint = sight.endpoints.get(row["endpoint_id"])
        if row["state"] == "pending" and (endpoint is None or endpoint["state"] == "enabled"):
            yield f"{row['type']} {row['event_id']} still waits for {row['endpoint_id']}: {row['last_error']}"
        if row["state"] == "dropped" and (endpoint is None or endpoint["state"] != "removed"):
            yield f"{row['type']} {row['event_id']} was dropped, and {row['endpoint_id']} is still there"
    made = {(row["endpoint_id"], row["event_id"]) for row in sight.deliveries}
    for subscriber in sight.doors.town.subscribers:
        if subscriber.complete_since:
            yield from _missed(sight, subscriber, subscriber.complete_since, made)


def _missed(sight: Sight, subscriber: Subscriber, since: uuid.UUID, made: Iterable[Any]) -> Iterator[str]:
    for each in sight.announced():
        is_wanted = subscriber.wanted is None or each["announced_type"] in subscriber.wanted
        if (
            each["announced_id"] > since
            and is_wanted
            and (subscriber.endpoint_id, each["announced_id"]) not in made
        ):
            yield f"{subscriber.url} was not told {each['announced_type']} {each['announced_id']}"


def the_order_service_knows(sight: Sight) -> Iterator[str]:
    """Every payment that is to be told and has ended was told, and no caller's token outlives its time."""
    heard = {each[0] for each in sight.doors.orders.heard}
    exhausted = {str(row["event_id"]) for row in sight.deliveries if row["state"] == "exhausted"}
    now = sight.doors.world.clock.now()
    for row in sight.callbacks:
        outcomes = {
            str(each["announced_id"])
            for each in sight.view.timeline[row["payment_id"]]
            if each["announced_type"] in OUTCOMES
        }
        if missing := outcomes - heard - exhausted:
            yield f"the order service has not heard {missing} of {row['payment_id']}"
        if row["sealed_token"] and outcomes and row["token_until"] + 2 * TOKEN_LASTS < now:
            yield f"the caller's token of {row['payment_id']} is kept; it was good until {row['token_until']}"


ALWAYS: Final[tuple[Invariant, ...]] = (
    a_notice_makes_one_payment,
    a_subscription_is_charged_once,
    the_catalog_hears_once,
    what_is_over_stays_over,
    webhooks_come_in_order,
    webhooks_say_what_happened,
    delivered_was_taken,
    disabled_for_a_reason,
    callbacks_say_the_outcome,
)
AT_REST: Final[tuple[Invariant, ...]] = (
    every_notice_is_answered,
    an_ended_reservation_keeps_no_money,
    a_subscription_is_kept_once,
    everybody_is_told,
    the_order_service_knows,
)


def broken_at_doors(view: View, doors: Doors, *, at_rest: bool) -> list[tuple[str, str]]:
    """The invariants of the doors that do not hold, with what shows it."""
    tables = rows_of(doors.world.harness.database, TABLES)
    sight = Sight(
        view=view,
        doors=doors,
        reservations=tables["reservation"],
        endpoints={row["id"]: row for row in tables["notification_endpoint"]},
        news=tables["notification_event"],
        deliveries=tables["notification_delivery"],
        callbacks=tables["order_callback"],
    )
    checked = (*ALWAYS, *AT_REST) if at_rest else ALWAYS
    found = [(each.__name__.replace("_", " "), problem) for each in checked for problem in each(sight)]
    return [("nothing breaks", problem) for problem in COMPLAINTS.heard] + found
