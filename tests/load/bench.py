"""Measure the whole stack under load: `make bench`. Prints a table, writes bench.json and latency.svg."""

import json
import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.progress import Progress

from deploy.local.client import RunningStack, running_stack
from deploy.stripe_simulator.latency import Latency
from tests.load import accounts, ceilings
from tests.load.arrivals import Arrival, send
from tests.load.outcomes import Outcomes, watching
from tests.load.report import show
from tests.load.scenarios import CHARGES, COURSES, MIXED, Scenario, commands_each
from tests.simulator import Simulator

RATES_PER_S = (50, 100, 200, 300)
MIXED_PER_S = 100  # commands, of which a scenario takes one or two
STEP_S = 20
WARM_UP_PER_S, WARM_UP_S = 50, 4
# A bank's time, as seen from a shop: the median, and one in a hundred.
GATEWAY = Latency(p50_ms=120, p99_ms=380)
DRAIN_TIMEOUT_S = 60

WIDTH = 110  # of the table, where there is no terminal to have another

console = Console() if sys.stdout.isatty() else Console(width=WIDTH)


@dataclass(frozen=True, slots=True)
class Step:
    """One rate: its orders, and the time it began (seconds on the monotonic clock)."""

    rate_per_s: float  # scenarios
    mix: tuple[Scenario, ...]
    arrivals: list[Arrival]
    began: float


@click.command()
@click.option("--rates", default=",".join(map(str, RATES_PER_S)), help="orders a second, by commas")
@click.option("--mixed", default=MIXED_PER_S, help="commands a second of the mixed step; 0: no such step")
@click.option("--seconds", default=STEP_S, help="length of a step")
def main(rates: str, mixed: int, seconds: int) -> None:
    """Send orders at rising rates, then a mixed load, and account for each one."""
    state_dir = Path(os.environ.get("STATE_DIR", ".local")) / "bench"
    shutil.rmtree(state_dir, ignore_errors=True)
    loads: list[tuple[float, tuple[Scenario, ...]]] = [
        (int(rate), CHARGES) for rate in rates.split(",") if rate
    ]
    loads += [(mixed / commands_each(MIXED), MIXED)] if mixed else []
    # A webhook a payment is the simulator's work as much as ours: WEBHOOKS=on measures with them.
    webhooks = os.environ.get("WEBHOOKS", "off")
    limit = {name: os.environ[name] for name in ("STRIPE_MAX_RPS",) if os.environ.get(name)}
    quiet = {"PORT": "0", "LOG_LEVEL": "warning", "WEBHOOKS": webhooks}
    with running_stack(state_dir, env={**quiet, **limit}) as stack:
        result = _measure(stack, loads, seconds)
    target = state_dir.parent
    (target / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    from tests.load.picture import draw

    draw([step for step in result["steps"] if step["mix"] == "charges"], target / "latency.svg")
    show(console, result)
    console.print(f"written: {target / 'bench.json'}, {target / 'latency.svg'}")
    sys.exit(1 if result["strangers"] or any(step["unaccounted"] for step in result["steps"]) else 0)


def _measure(
    stack: RunningStack, loads: list[tuple[float, tuple[Scenario, ...]]], seconds: int
) -> dict[str, Any]:
    simulator = Simulator(str(stack.endpoints.stripe_api_url))
    with console.status("measuring this machine's ceilings"):
        limits = {
            "db_inserts_per_s": round(ceilings.db_inserts_per_s(stack.endpoints.database_url)),
            "celery_noops_per_s": round(ceilings.celery_noops_per_s(stack.endpoints.redis_url)),
        }
    simulator.latency(GATEWAY.p50_ms, GATEWAY.p99_ms)
    with watching(stack.endpoints.kafka_bootstrap_servers) as outcomes:
        with console.status("warming up"):
            _step(stack, outcomes, WARM_UP_PER_S, MIXED, WARM_UP_S, Progress(disable=True))
        with Progress(console=console) as progress:
            steps = [_step(stack, outcomes, rate, mix, seconds, progress) for rate, mix in loads]
        memory = _memory_mb(stack)
        with console.status("joining orders, payments, charges, refunds and events row by row"):
            books = accounts.gather(stack.endpoints.database_url, simulator, outcomes)
            rows = [_row(step, seconds, outcomes, books) for step in steps]
    return {
        "steps": rows,
        "strangers": books.strangers,
        "ceilings": limits,
        "rss_mb": memory,
        "stripe_max_rps": os.environ.get("STRIPE_MAX_RPS") or None,
    }


def _step(
    stack: RunningStack,
    outcomes: Outcomes,
    rate_per_s: float,
    mix: tuple[Scenario, ...],
    seconds: int,
    progress: Progress,
) -> Step:
    name = f"{rate_per_s:5.4g}/s" if mix is CHARGES else "mixed"
    bar = progress.add_task(f"{name:>7} answered", total=round(rate_per_s * seconds))
    began = time.monotonic()
    arrivals = send(
        str(stack.endpoints.api_url),
        rate_per_s,
        seconds,
        mix,
        outcomes,
        lambda: progress.update(bar, advance=1),
    )
    ends = {_end(each) for each in arrivals if each.accepted}
    bar = progress.add_task(f"{name:>7} outcomes", total=len(ends))
    until = time.monotonic() + DRAIN_TIMEOUT_S
    while (done := len(ends & outcomes.first_at.keys())) < len(ends) and time.monotonic() < until:
        outcomes.collect()
        progress.update(bar, completed=done)
        time.sleep(0.02)
    progress.update(bar, completed=len(ends & outcomes.first_at.keys()))
    return Step(rate_per_s, mix, arrivals, began)


def _end(arrival: Arrival) -> tuple[str, str]:
    """The order, and the topic of its scenario's last outcome."""
    return arrival.order_id, COURSES[arrival.scenario].ends_at


def _row(step: Step, seconds: int, outcomes: Outcomes, books: accounts.Books) -> dict[str, Any]:
    """One step's figures; accepted and completed are whole scenarios."""
    ended = step.began + seconds
    accepted = [each for each in step.arrivals if each.accepted]
    seen = [(each, outcomes.first_at[_end(each)]) for each in accepted if _end(each) in outcomes.first_at]
    end_to_end_s = [(each, at - each.due) for each, at in seen]
    return {
        "mix": "charges" if step.mix is CHARGES else "mixed",
        "offered_per_s": round(step.rate_per_s, 1),
        "commands_per_s": round(step.rate_per_s * commands_each(step.mix), 1),
        "accepted_per_s": round(sum(each.done <= ended for each in accepted) / seconds, 1),
        "completed_per_s": round(sum(at <= ended for _, at in seen) / seconds, 1),
        "create_ms": _quantiles([(each.answered - each.due) * 1000 for each in accepted]),
        "end_to_end_ms": _quantiles([whole_s * 1000 for _, whole_s in end_to_end_s]),
        "added_ms": _quantiles(
            [(whole_s - _at_gateway_s(each.order_id, books)) * 1000 for each, whole_s in end_to_end_s]
        ),
        "unaccounted": len(accounts.unaccounted(step.arrivals, books, outcomes)),
    }


def _at_gateway_s(order_id: str, books: accounts.Books) -> float:
    """How long the calls of an order took at the gateway; their keys are the operations' ids."""
    return sum(GATEWAY.draw_s(row.operation_id) for row in books.rows.get(order_id, []))


def _quantiles(values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return {"p50": float("nan"), "p99": float("nan")}
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)}


def _memory_mb(stack: RunningStack) -> dict[str, float]:
    """Resident memory by process, children included; pages that processes share are counted once."""
    parts = ("api", "relay", "consumer", "tasks", "scheduler", "postgres", "valkey", "broker")
    return {name: round(_resident_mb(psutil.Process(stack.pid_of(name))), 1) for name in parts}


def _resident_mb(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    sizes = [each.memory_full_info() for each in family]
    return sum(getattr(each, "pss", each.rss) for each in sizes) / 1e6


if __name__ == "__main__":
    main()
