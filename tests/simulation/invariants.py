"""What must hold, each as a function of its own: always, or once everything has come to rest."""

from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Final

from tests.simulation.view import Row, View
from tests.simulation.witness import HELD, LEASE_LOST, PAUSED, REPEATED, TWO_HOLDERS

Invariant = Callable[[View], Iterator[str]]

# Written down again, so that the service's own table is checked against something.
EDGES: Final = {
    ("pending", "processing"): None,
    ("pending", "cancelled"): "payment-cancelled",
    ("processing", "succeeded"): "payment-succeeded",
    ("processing", "failed"): "payment-failed",
    ("processing", "authorized"): "payment-authorized",
    ("processing", "requires_action"): "payment-action-required",
    ("requires_action", "processing"): None,
    ("requires_action", "authorized"): "payment-authorized",
    ("requires_action", "succeeded"): "payment-succeeded",
    ("requires_action", "failed"): "payment-failed",
    ("requires_action", "cancelled"): "payment-cancelled",
    ("authorized", "succeeded"): "payment-succeeded",
    ("authorized", "cancelled"): "payment-cancelled",
    ("authorized", "failed"): "payment-failed",
    ("succeeded", "partially_refunded"): "refund-succeeded",
    ("succeeded", "refunded"): "refund-succeeded",
    ("partially_refunded", "refunded"): "refund-succeeded",
    ("partially_refunded", "succeeded"): "refund-failed",
    ("refunded", "partially_refunded"): "refund-failed",
    ("refunded", "succeeded"): "refund-failed",
}
DEAD: Final = {"failed", "cancelled"}
PAID: Final = {"succeeded", "partially_refunded", "refunded"}
ELSEWHERE: Final = "made at the gateway"
HOLDS_MONEY: Final = {"succeeded", "requires_capture"}


# --- at every moment ---


def charged_at_most_once(view: View) -> Iterator[str]:
    """At most one successful charge or hold at the gateway for each payment."""
    for payment_id in view.payments:
        good = [each for each in view.intents_of(payment_id) if each["status"] in HOLDS_MONEY]
        if len(good) > 1:
            yield f"{payment_id} has {len(good)} successful charges: {[each['id'] for each in good]}"


def answered_is_kept(view: View) -> Iterator[str]:
    """What a client was told to be accepted is in the database, whatever died since."""
    operations = {each["id"] for each in view.operations}
    for each in view.answered:
        if each.payment_id not in view.payments:
            yield f"the payment {each.payment_id} of an accepted request is gone"
        if each.operation_id and each.operation_id not in operations:
            yield f"the operation {each.operation_id} of an accepted request is gone"


def same_key_same_resource(view: View) -> Iterator[str]:
    """One idempotency key stands for one request and one thing that it made."""
    first: dict[str, tuple[object, ...]] = {}
    for each in view.answered:
        if each.ask.key:
            made = each.ask.hashed(), each.payment_id, each.operation_id
            if first.setdefault(each.ask.key, made) != made:
                yield f"the key {each.ask.key} stands for {first[each.ask.key]} and {made}"


def one_live_payment_an_order(view: View) -> Iterator[str]:
    """An order, and a cart, has at most one payment that is neither failed nor cancelled."""
    for name in ("order_id", "cart_id"):
        live = Counter(row[name] for row in view.payments.values() if row[name] and row["status"] not in DEAD)
        for value, count in live.items():
            if count > 1:
                yield f"{name} {value} has {count} live payments"


def history_has_no_gaps(view: View) -> Iterator[str]:
    """Each payment's history counts from one to its version, and leads to its status."""
    for payment_id, payment in view.payments.items():
        entries = view.timeline.get(payment_id, [])
        if [each["sequence"] for each in entries] != list(range(1, payment["version"] + 1)):
            yield f"{payment_id}: version {payment['version']}, history {[e['sequence'] for e in entries]}"
        moves = [each for each in entries if each["to_status"]]
        if not moves or moves[-1]["to_status"] != payment["status"]:
            yield f"{payment_id}: is {payment['status']}, its history says otherwise"


def only_edges_of_the_table(view: View) -> Iterator[str]:
    """A status changes by an edge of the table, from where the payment was, and announces its event."""
    for payment_id, entries in view.timeline.items():
        status = None
        for each in entries:
            if not each["to_status"]:
                continue
            edge = (each["from_status"], each["to_status"])
            if each["from_status"] != status:
                yield f"{payment_id}: from {each['from_status']}, though it was {status}"
            status = each["to_status"]
            announced = EDGES.get(edge, "no such edge") if edge[0] else "payment-requested"
            if each["announced_type"] != announced:
                yield f"{payment_id}: {edge} announced {each['announced_type']}, not {announced}"


def one_event_id_each(view: View) -> Iterator[str]:
    """No two entries of any history announce the same event, and what waits is in the history."""
    ids = [
        each["announced_id"] for entries in view.timeline.values() for each in entries if each["announced_id"]
    ]
    for event_id, count in Counter(ids).items():
        if count > 1:
            yield f"event {event_id} is announced {count} times"
    for row in view.outbox:
        if row["id"] not in set(ids):
            yield f"event {row['id']} waits and is in no history"


def events_are_of_the_history(view: View) -> Iterator[str]:
    """Kafka has seen only events of the history, with their place in it; first in the payment's order."""
    known = {
        each["announced_id"]: (payment_id, each["sequence"], each["announced_type"])
        for payment_id, entries in view.timeline.items()
        for each in entries
        if each["announced_id"]
    }
    newest: dict[object, int] = {}
    seen = set()
    for each in view.said:
        if known.get(each.id) != (each.payment_id, each.sequence, each.type):
            yield f"Kafka has {each.type} {each.id}, which is in no history"
        if each.id not in seen and each.sequence < newest.get(each.payment_id, 0):
            yield f"{each.payment_id}: {each.type} {each.sequence} came after {newest[each.payment_id]}"
        seen.add(each.id)
        newest[each.payment_id] = max(each.sequence, newest.get(each.payment_id, 0))


def delivered_leaves_the_outbox_only(view: View) -> Iterator[str]:
    """What is announced waits in the outbox until Kafka has it."""
    waiting, seen = {row["id"] for row in view.outbox}, {each.id for each in view.said}
    for payment_id, entries in view.timeline.items():
        for each in entries:
            if each["announced_id"] and each["announced_id"] not in waiting | seen:
                yield f"{payment_id}: {each['announced_type']} neither waits nor was delivered"


def refunds_within_capture(view: View) -> Iterator[str]:
    """What we ask to be given back never exceeds what was taken."""
    for payment_id, payment in view.payments.items():
        ours = [each for each in _refunds(view, payment_id) if not _is_foreign(view, each)]
        asked = sum(each["amount_minor"] for each in ours if each["state"] != "failed")
        if asked > payment["captured_minor"]:
            yield f"{payment_id}: {asked} asked to be refunded of {payment['captured_minor']}"


def sums_add_up(view: View) -> Iterator[str]:
    """A payment's sums are those of its refunds."""
    for payment_id, payment in view.payments.items():
        rows = _refunds(view, payment_id)
        open_minor = sum(each["amount_minor"] for each in rows if each["finished_at"] is None)
        done_minor = sum(each["amount_minor"] for each in rows if each["state"] == "succeeded")
        twice = sum(len((each["outcome"] or {}).get("seconds", [])) for each in rows)
        if payment["refund_reserved_minor"] != open_minor:
            yield f"{payment_id}: {payment['refund_reserved_minor']} reserved, {open_minor} open"
        if payment["refunded_minor"] != done_minor and not twice:
            yield f"{payment_id}: {payment['refunded_minor']} refunded, its refunds are {done_minor}"


def dead_holds_no_money(view: View) -> Iterator[str]:
    """A payment that has failed or was cancelled has no money at the gateway, unless it is going back."""
    for payment_id, payment in view.payments.items():
        if payment["status"] not in DEAD:
            continue
        for intent in view.intents_of(payment_id):
            if intent["status"] in HOLDS_MONEY and not _is_being_undone(view, payment_id):
                yield f"{payment_id} is {payment['status']}, and {intent['id']} is {intent['status']}"


def no_connection_held(view: View) -> Iterator[str]:
    """Nobody holds a connection while the gateway is asked."""
    yield from _seen(view, HELD)


def one_holder_at_a_time(view: View) -> Iterator[str]:
    """While the lease of one who carries out an operation lasts, nobody else carries it out."""
    yield from _seen(view, TWO_HOLDERS)


def a_holder_keeps_its_lease(view: View) -> Iterator[str]:
    """Whoever comes late does not take the lease of the one who carries the operation out now."""
    yield from _seen(view, LEASE_LOST)


def a_message_starts_one_attempt(view: View) -> Iterator[str]:
    """A message that comes again, or late, starts no other attempt than the one that it was sent for."""
    yield from _seen(view, REPEATED)


def nothing_paused_is_sent(view: View) -> Iterator[str]:
    """What an operator has halted is not sent."""
    yield from _seen(view, PAUSED)


def each_command_takes_effect_once(view: View) -> Iterator[str]:
    """However often a command comes over Kafka, it leaves one mark at most; a reservation's end has many."""
    marks = sum(
        each["actor"] == "kafka"
        and each["announced_type"] != "payment-processed"  # told beside the mark
        and view.payments[payment_id]["reservation_id"] is None
        for payment_id, entries in view.timeline.items()
        for each in entries
    )
    taken = sum(row["source"] != "stripe" and row["error"] is None for row in view.inbox)
    if marks > taken:
        yield f"{taken} commands have left {marks} marks"


def money_is_whole(view: View) -> Iterator[str]:
    """Amounts are integers of minor units, and an event's decimal says the same."""
    for each in view.said:
        if each.type == "payment-processed":  # the catalog's, which knows decimals alone
            continue
        minor, amount = each.value.get("amountMinor"), each.value.get("amount")
        if type(minor) is not int or Decimal(str(amount)) * 100 != minor:
            yield f"{each.type} {each.id} says {amount!r} and {minor!r}"


# --- once everything has come to rest ---


def everything_ends(view: View) -> Iterator[str]:
    """Every operation is finished, or an operator is shown it; no payment is left in between."""
    for each in view.operations:
        if each["finished_at"] is None and not each["needs_review"]:
            yield f"{each['kind']} {each['id']} is still {each['state']}"
    for payment_id, payment in view.payments.items():
        shown = any(each["needs_review"] for each in view.operations_of(payment_id))
        if payment["status"] in {"pending", "processing", "requires_action"} and not shown:
            yield f"{payment_id} is still {payment['status']}"


def cancelled_keeps_no_money(view: View) -> Iterator[str]:
    """What was to be cancelled has gone back, or an operator is shown that it cannot."""
    for payment_id, payment in view.payments.items():
        shown = any(each["needs_review"] for each in view.operations_of(payment_id))
        if payment["cancel_requested_at"] is None or shown:
            continue
        for intent in view.intents_of(payment_id):
            if intent["status"] in HOLDS_MONEY and (
                intent["status"] == "requires_capture" or view.net_minor(intent)
            ):
                yield f"{payment_id} was to be cancelled, and {intent['id']} is {intent['status']}"


def everything_is_delivered(view: View) -> Iterator[str]:
    """Nothing waits for Kafka, and each command from Kafka was carried out or refused, once."""
    for row in view.outbox:
        yield f"{row['type']} of {row['aggregateid']} still waits: {row['parked_reason']}"
    taken = {(row["source"], row["message_id"]) for row in view.inbox}
    for message_id, topic in view.messages.items():
        if (topic, message_id) not in taken:
            yield f"the command {topic} {message_id} was lost"
    for row in view.inbox:
        if row["source"] == "stripe" and row["state"] in {"received", "failed"}:
            yield f"the webhook {row['type']} {row['message_id']} is {row['state']}: {row['error']}"


def every_charge_has_its_row(view: View) -> Iterator[str]:
    """Every charge at the gateway is a payment's, which stands as the charge does, to the cent."""
    for intent in view.intents:
        payment = next(
            (row for row in view.payments.values() if str(row["id"]) == intent["metadata"].get("payment_id")),
            None,
        )
        if payment is None:
            yield f"{intent['id']} belongs to no payment"
        elif payment["gateway_ref"] == intent["id"]:
            yield from _differences(view, payment, intent)
        elif intent["status"] in HOLDS_MONEY and view.net_minor(intent):
            yield f"{intent['id']} holds money that {payment['id']} does not know of"
    refs = {each["id"] for each in view.intents}
    for payment in view.payments.values():
        if payment["gateway_ref"] and payment["gateway_ref"] not in refs:
            yield f"{payment['id']} names {payment['gateway_ref']}, which the gateway does not have"


def _differences(view: View, payment: Row, intent: Row) -> Iterator[str]:
    expected = {
        "succeeded": PAID | DEAD,
        "requires_capture": {"authorized"},
        "canceled": DEAD,
        "requires_payment_method": {"failed"},
    }.get(intent["status"], set())
    shown = any(each["needs_review"] for each in view.operations_of(payment["id"]))
    if payment["status"] not in expected and not shown:
        yield f"{payment['id']} is {payment['status']}, {intent['id']} is {intent['status']}"
    if payment["captured_minor"] != (taken := intent.get("amount_received", 0)):
        yield f"{payment['id']}: {payment['captured_minor']} captured here, {taken} there"
    given = sum(each["amount"] for each in view.refunds_of(intent["id"]) if each["status"] == "succeeded")
    if payment["refunded_minor"] != given:
        yield f"{payment['id']}: {payment['refunded_minor']} refunded here, {given} there"
    if payment["status"] in DEAD and view.net_minor(intent) and not shown:
        yield f"{payment['id']} is {payment['status']} and still holds {view.net_minor(intent)}"


def every_refund_has_its_row(view: View) -> Iterator[str]:
    """Each refund at the gateway is exactly one operation of ours, and each of ours is there."""
    rows = Counter(each["gateway_ref"] for each in view.operations if each["kind"] == "refund")
    there = {each["id"] for each in view.refunds if not each.get("_release")}
    for refund_id in there:
        if rows[refund_id] != 1:
            yield f"the refund {refund_id} has {rows[refund_id]} rows"
    for each in view.operations:
        if each["kind"] == "refund" and each["state"] == "succeeded" and each["gateway_ref"] not in there:
            yield f"the refund {each['id']} has succeeded here, and the gateway does not have it"


def every_dispute_is_known(view: View) -> Iterator[str]:
    """Each dispute stands here as it does at the gateway."""
    for dispute in view.disputes:
        for payment in view.payments.values():
            if payment["gateway_ref"] == dispute["payment_intent"]:
                known = payment["dispute"] or {}
                here = known.get("status") if known.get("id") == dispute["id"] else None
                if here != dispute["status"]:
                    yield f"{payment['id']}: {dispute['id']} is {here} here, {dispute['status']} there"


def no_order_is_paid_twice(view: View) -> Iterator[str]:
    """However many payments an order has had, the money of one is all that stays with us."""
    for name in ("order_id", "cart_id"):
        kept: dict[str, list[str]] = {}
        for payment_id, payment in view.payments.items():
            if payment[name] and any(
                each["status"] in HOLDS_MONEY and view.net_minor(each) for each in view.intents_of(payment_id)
            ):
                kept.setdefault(payment[name], []).append(str(payment_id))
        for value, ids in kept.items():
            if len(ids) > 1:
                yield f"{name} {value} was paid by {ids}"


def _seen(view: View, kind: str) -> Iterator[str]:
    return (what for name, what in view.seen if name == kind)


def _refunds(view: View, payment_id: object) -> list[Row]:
    """The refunds of a payment's own charge."""
    return [
        each
        for each in view.operations
        if each["payment_id"] == payment_id and each["kind"] == "refund" and not each["target_ref"]
    ]


def _is_foreign(view: View, operation: Row) -> bool:
    """Whether a refund was made by others: it never had to be sent."""
    return operation["request"] is None and operation["gateway_ref"] is not None


def _is_being_undone(view: View, payment_id: object) -> bool:
    """Whether a refund or a cancel looks after money that should not be there, or a person does."""
    return any(
        each["payment_id"] == payment_id and (each["kind"] in {"refund", "cancel"} or each["needs_review"])
        for each in view.operations
    )


ALWAYS: Final[tuple[Invariant, ...]] = (
    charged_at_most_once,
    answered_is_kept,
    same_key_same_resource,
    one_live_payment_an_order,
    history_has_no_gaps,
    only_edges_of_the_table,
    one_event_id_each,
    events_are_of_the_history,
    delivered_leaves_the_outbox_only,
    refunds_within_capture,
    sums_add_up,
    dead_holds_no_money,
    no_connection_held,
    one_holder_at_a_time,
    a_holder_keeps_its_lease,
    a_message_starts_one_attempt,
    nothing_paused_is_sent,
    each_command_takes_effect_once,
    money_is_whole,
)
AT_REST: Final[tuple[Invariant, ...]] = (
    everything_ends,
    cancelled_keeps_no_money,
    everything_is_delivered,
    every_charge_has_its_row,
    every_refund_has_its_row,
    every_dispute_is_known,
    no_order_is_paid_twice,
)
EVERYTHING_COMES_TO_REST: Final = "everything comes to rest"
NOTHING_BREAKS: Final = "nothing breaks"


def broken(view: View, *, at_rest: bool) -> list[tuple[str, str]]:
    """The invariants that do not hold, with what shows it."""
    checked = (*ALWAYS, *AT_REST) if at_rest else ALWAYS
    return [(each.__name__.replace("_", " "), problem) for each in checked for problem in each(view)]
