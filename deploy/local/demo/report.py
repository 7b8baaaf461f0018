"""What is left to read when the demo is over: a table for each kind of order, then the audit's verdict."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests
from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from deploy.local.demo.against_stripe import PAID
from deploy.local.demo.audit import audit, audit_orders
from deploy.local.demo.orders import Case, Kind
from deploy.local.demo.rows import ChargeRow, EventRow, Finding, PaymentRow, RefundRow
from deploy.local.ordering import Outcome, Verdict

TIMEOUT_S = 10
WEBHOOK_ACTOR = "stripe webhook"
KINDS = ("unaccounted", "open")
COLOURS = {
    "succeeded": "green",
    "refunded": "green",
    "partially_refunded": "green",
    "failed": "red",
    "pending": "dim",
    "processing": "yellow",
}
# Where the column is too narrow for the topic's own name.
HEARD_AS = {"payment-action-required": "must act", "refund-succeeded": "refunded"}
ARROW = " [dim]→[/] "
# What the history calls it, and how it reads between two statuses; None: the entry's own reason.
NOTES = {
    "charge to be tried again": None,
    "outcome in doubt": "in doubt",
    "charge found at the gateway": "found at Stripe",
    "charge verified absent": "verified absent, new key",
    "capture requested": "capture",
    "cancel requested": "cancel",
    "refund requested": "refund",
    # That they were sent goes without saying: the outcome follows.
    "capture sent": "",
    "cancel sent": "",
    "refund sent": "",
}
REASONS = {
    "the answer was lost": "answer lost",
    "the gateway answered 500": "500",
    "rate_limit": "429",
    "lock_timeout": "429 lock timeout",
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that was seen, from every side."""

    kinds: Sequence[Kind]
    charges: Sequence[ChargeRow]
    refunds: Sequence[RefundRow]
    payments: Sequence[PaymentRow]
    events: Sequence[EventRow]
    messages: Sequence[tuple[Outcome, Verdict]]
    timelines: dict[str, list[dict[str, Any]]]  # by payment id
    durations_s: dict[str, float | None]  # by payment id


def fetch_timelines(api_url: str, payment_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Every payment's history, as the API tells it."""
    with requests.Session() as session:
        answers = {
            each: session.get(f"{api_url}/payments/{each}/timeline", timeout=TIMEOUT_S)
            for each in payment_ids
        }
    return {payment_id: answer.json()["timeline"] for payment_id, answer in answers.items()}


def show(console: Console, evidence: Evidence, took_s: float) -> bool:
    """Print the tables and the audit; return whether everything is accounted for and nothing is open."""
    for kind in evidence.kinds:
        console.print()
        console.print(_table(kind, evidence))
    orders = [case.row() for kind in evidence.kinds for case in kind.cases]
    findings = audit(evidence.charges, evidence.refunds, evidence.payments, evidence.events)
    findings += audit_orders(orders, evidence.payments, evidence.events)
    console.print()
    console.print(_verdict(evidence, findings))
    console.print(_summary(evidence, findings, len(orders), took_s))
    return not findings


def _table(kind: Kind, evidence: Evidence) -> Table:
    title = f"[bold]{kind.title}[/]: {kind.about}"
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = 0
    table.add_column("amount", justify="right", width=14)
    table.add_column("order", width=24)
    table.add_column("HTTP", width=7)
    table.add_column("timeline", width=32)
    table.add_column("on Kafka", width=13)
    table.add_column("sec", justify="right", width=5)
    for case in kind.cases:
        table.add_row(*_row(case, evidence))
    return table


def _row(case: Case, evidence: Evidence) -> list[str]:
    statuses = Counter(answer.http_status for answer in case.answers)
    amount = f"{case.money.to_decimal():,f} {case.money.currency}"
    answers = " ".join(f"{status} x{n}" if n > 1 else str(status) for status, n in statuses.items())
    ids = dict.fromkeys(answer.payment_id for answer in case.answers)
    timelines = [_timeline(evidence.timelines.get(each, [])) for each in ids]
    events = [_events(each, evidence.messages) for each in ids]
    durations = [evidence.durations_s.get(each) for each in ids]
    seconds = [f"{each:.1f}" if each is not None else "open" for each in durations]
    return [amount, escape(case.label), answers, *map("\n".join, (timelines, events, seconds))]


def _timeline(entries: list[dict[str, Any]]) -> str:
    steps = [_step(entry) for entry in entries]
    return ARROW.join(step for step in steps if step) or "[red]no history[/]"


def _step(entry: dict[str, Any]) -> str:
    detail = entry["detail"] or {}
    if status := entry["to"]:
        # The first attempt goes without saying.
        tries = f" [dim](try {detail['attempt']})[/]" if detail.get("attempt", 1) > 1 else ""
        told = " [dim](by webhook)[/]" if entry["actor"] == WEBHOOK_ACTOR else ""
        return f"[{COLOURS.get(status, 'magenta')}]{status.replace('_', ' ')}[/]{tries}{told}"
    reason = detail.get("reason", "").rpartition(": ")[2]
    words = NOTES.get(entry["event"], entry["event"])
    words = REASONS.get(reason, reason) if words is None else words
    return f"[magenta]{escape(words)}[/]" if words else ""


def _events(payment_id: str, messages: Sequence[tuple[Outcome, Verdict]]) -> str:
    # In the payment's order: one topic may be read before another.
    ours = sorted((each for each, _ in messages if each.payment_id == payment_id), key=lambda e: e.sequence)
    times = Counter(outcome.event_id for outcome in ours)
    lines = []
    for event_id, outcome in {outcome.event_id: outcome for outcome in ours}.items():
        word = HEARD_AS.get(outcome.topic, outcome.topic.removeprefix("payment-"))
        again = f" x{times[event_id]}" if times[event_id] > 1 else ""
        lines.append(f"[{COLOURS.get(word, 'magenta')}]{word}[/] [dim]#{outcome.sequence}{again}[/]")
    return "\n".join(lines) or "[red]nothing[/]"


def _verdict(evidence: Evidence, findings: Sequence[Finding]) -> Panel:
    parts: list[RenderableType] = [_sources(evidence), ""]
    names = _names(evidence.kinds)
    for each in findings:
        name = names.get(each.subject, "not an order of this demo")
        parts.append(f"[red]{each.kind}[/] {name} [dim]{each.subject}[/]: {escape(each.says)}")
    if not findings:
        parts.append("Joined row by row on payment, operation and refund id: every row has its counterparts.")
    colour = "red" if findings else "green"
    return Panel(Group(*parts), title="[bold]Audit[/]", title_align="left", border_style=colour)


def _names(kinds: Sequence[Kind]) -> dict[str, str]:
    """What people call an order, by its own id and by the payments that its answers named."""
    return {
        subject: f"{case.money}, {escape(case.label)}"
        for kind in kinds
        for case in kind.cases
        for subject in (case.order.order_id, *(answer.payment_id for answer in case.answers))
    }


def _summary(evidence: Evidence, findings: Sequence[Finding], order_count: int, took_s: float) -> str:
    statuses = Counter({row.payment_id: row.status for row in evidence.payments}.values())
    charged = sum(statuses[each] for each in PAID)
    back = statuses["refunded"] + statuses["partially_refunded"]
    wrong = {kind: len({each.subject for each in findings if each.kind == kind}) for kind in KINDS}
    return (
        f"[bold {'red' if findings else 'green'}]"
        f"{order_count} orders: {charged} charged, {back} with refunds, "
        f"{statuses['cancelled']} cancelled, {statuses['failed']} failed, "
        f"{wrong['unaccounted']} unaccounted, {wrong['open']} open[/] in {took_s:.1f} s"
    )


def _sources(evidence: Evidence) -> Table:
    """How much each side has; the comparison itself is by row."""
    charges = Counter(charge.status for charge in evidence.charges)
    released = sum(refund.is_release for refund in evidence.refunds)
    payments = {row.payment_id for row in evidence.payments}
    operations = {row.operation_id for row in evidence.payments} - {None}
    events = {event.event_id for event in evidence.events}
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "Stripe's ledger",
        f"{charges['succeeded']} charges and holds, {charges['failed']} declined attempts, "
        f"{len(evidence.refunds) - released} refunds, {released} releases",
    )
    table.add_row("our database", f"{len(payments)} payments, {len(operations)} operations")
    repeats = len(evidence.events) - len(events)
    table.add_row(
        "Kafka", f"{len(events)} outcome events in {len(evidence.events)} messages, {repeats} repeated"
    )
    return table
