"""Account for every order of a run: answers, rows, charges, refunds, events; and the figures of a report."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from deploy.local.demo.audit import audit, audit_orders
from deploy.local.demo.evidence import Database
from deploy.local.demo.rows import Finding, PaymentRow
from tests.chaos.run import Blow, Run
from tests.chaos.schedule import Kind


def settle(run: Run) -> dict[str, Any]:
    """Join every side of a run, row by row and in each direction; the figures of its report."""
    with closing(Database(run.stack.endpoints.database_url)) as database:
        payments = database.payments()
    events = run.hearing.heard.rows()
    cases = list(run.load.cases)
    findings = [
        *audit(run.stripe.charges(), run.stripe.refunds(), payments, events),
        *audit_orders([case.row() for case in cases], payments, events),
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
        "replayed": run.replayed,
        "unaccounted": len({each.subject for each in findings if each.kind == "unaccounted"}),
        "open": len({each.subject for each in findings if each.kind == "open"}),
        "findings": [asdict(each) for each in findings],
    }


def complaints(run: Run) -> list[str]:
    """Answers that no customer should have got, over HTTP and on Kafka, and customers who broke down."""
    refused = run.load.customers.refused if run.load.customers else []
    return [*refused, *run.hearing.rejected, *run.load.broken]


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
