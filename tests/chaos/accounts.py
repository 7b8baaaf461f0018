"""Account for every order of a run: answers, rows, charges, refunds, events; and the figures of a report."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, TypeVar

from deploy.local.demo.audit import audit, audit_orders
from deploy.local.demo.evidence import Database
from deploy.local.demo.orders import Case
from deploy.local.demo.rows import EventRow, Finding, OrderRow, PaymentRow
from tests.chaos.courses import MAY_BE_HEARD, Course
from tests.chaos.history import History
from tests.chaos.run import Blow, Run
from tests.chaos.schedule import Kind
from tests.chaos.told import judge_callbacks, judge_processed, judge_webhooks

Row = TypeVar("Row", PaymentRow, EventRow)


def settle(run: Run) -> dict[str, Any]:
    """Join every side of a run, row by row and in each direction; the figures of its report."""
    url = run.stack.endpoints.database_url
    with closing(Database(url)) as database, closing(History(url)) as history:
        payments, subscriptions = database.payments(), history.subscriptions()
        entries, untold = history.entries(), history.untold()
    events = run.hearing.heard.rows()
    cases = list(run.load.cases)
    webhooks, callbacks = dict(run.receiver.events), dict(run.receiver.orders)  # others may still come
    # A subscription stands where others have their order.
    ordered, told = _by_order(payments, subscriptions), _by_order(events, subscriptions)
    findings = [
        *audit(run.stripe.charges(), run.stripe.refunds(), payments, events),
        *audit_orders([_expected(case, told) for case in cases], ordered, told),
        *judge_processed(cases, ordered, [outcome for outcome, _ in run.hearing.processed.messages()]),
        *judge_webhooks(entries, webhooks),
        *judge_callbacks(cases, ordered, entries, callbacks),
        *(Finding("open", each, "somebody waits to be told of an event") for each in untold),
        *(Finding("unaccounted", "a customer", says) for says in complaints(run)),
    ]
    customers = run.load.customers
    return {
        "kills": [_row(blow) for blow in run.blows],
        "by_kind": by_kind(run.blows),
        "orders": Counter(case.label for case in cases),
        "answers": customers.answers if customers else {},
        "accepted": sum(bool(case.answers) for case in cases),
        **_outcomes(payments),
        "events": len({event.event_id for event in events}),
        "messages": len(events),
        "processed": len(run.hearing.processed.ids()),
        "notified": sum(came.taken is not None for came in webhooks.values()),
        "callbacks": len(callbacks),
        "receiver": asdict(run.receiver.counts),
        "replayed": run.replayed,
        "unaccounted": len({each.subject for each in findings if each.kind == "unaccounted"}),
        "open": len({each.subject for each in findings if each.kind == "open"}),
        "findings": [asdict(each) for each in findings],
    }


def complaints(run: Run) -> list[str]:
    """Answers that no customer should have got, over HTTP and on Kafka, who broke down, and forgeries."""
    refused = run.load.customers.refused if run.load.customers else []
    return [*refused, *run.hearing.rejected, *run.load.broken, *run.receiver.forged]


def _by_order(rows: Iterable[Row], subscriptions: Mapping[str, str]) -> list[Row]:
    return [replace(row, order_id=subscriptions.get(row.payment_id, row.order_id)) for row in rows]


def _expected(case: Case, told: Iterable[EventRow]) -> OrderRow:
    """How an order must end; with the events that may be announced of it or not, if they were."""
    row, may_be = case.row(), MAY_BE_HEARD.get(Course(case.label))
    if not may_be:
        return row
    heard = may_be & {event.topic for event in told if event.order_id == row.order_id}
    return replace(row, events=tuple(sorted({*row.events, *heard})))


def by_kind(blows: Sequence[Blow]) -> dict[str, dict[str, Any]]:
    """How often each kind was struck, and how long recovery took: p50 and the longest, in seconds."""
    table = {}
    for kind in Kind:
        own = [blow for blow in blows if blow.strike.kind is kind]
        took = [blow.recovered_s for blow in own if blow.recovered_s is not None]
        if own:
            table[str(kind)] = {
                "kills": len(own),
                "recovered": len(took),
                "p50_s": _rounded(statistics.median(took) if took else None),
                "max_s": _rounded(max(took, default=None)),
            }
    return table


def _row(blow: Blow) -> dict[str, Any]:
    return {
        "kind": str(blow.strike.kind),
        "pause_s": _rounded(blow.strike.pause_s),
        "what": blow.says,
        "back_s": _rounded(blow.back_s),
        "probe_s": _rounded(blow.probe_s),
        "recovered_s": _rounded(blow.recovered_s),
    }


def _outcomes(payments: Iterable[PaymentRow]) -> dict[str, int]:
    """How many payments took money, gave some back, were let go, were declined."""
    of_payment = {row.payment_id: row for row in payments}.values()
    return {
        "payments": len(of_payment),
        "charged": sum(row.captured_minor > 0 for row in of_payment),
        "refunded": sum(row.refunded_minor > 0 for row in of_payment),
        "cancelled": sum(row.status == "cancelled" for row in of_payment),
        "declined": sum(row.status == "failed" for row in of_payment),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
