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
from tests.simulator import Simulator

RATES_PER_S = (50, 100, 200, 300)
STEP_S = 20
WARM_UP_PER_S, WARM_UP_S = 50, 4
# A bank's time, as seen from a shop: the median, and one in a hundred.
GATEWAY = Latency(p50_ms=120, p99_ms=380)
DRAIN_TIMEOUT_S = 60

console = Console()


@dataclass(frozen=True, slots=True)
class Step:
    """One rate: its orders, and the time it began and ended (seconds on the monotonic clock)."""

    rate_per_s: int
    arrivals: list[Arrival]
    began: float


@click.command()
@click.option("--rates", default=",".join(map(str, RATES_PER_S)), help="orders a second, by commas")
@click.option("--seconds", default=STEP_S, help="length of a step")
def main(rates: str, seconds: int) -> None:
    """Send orders at rising rates, and account for each one."""
    state_dir = Path(os.environ.get("STATE_DIR", ".local")) / "bench"
    shutil.rmtree(state_dir, ignore_errors=True)
    with running_stack(state_dir, env={"PORT": "0", "LOG_LEVEL": "warning"}) as stack:
        result = _measure(stack, [int(rate) for rate in rates.split(",")], seconds)
    target = state_dir.parent
    (target / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    from tests.load.picture import draw

    draw(result["steps"], target / "latency.svg")
    show(console, result)
    console.print(f"written: {target / 'bench.json'}, {target / 'latency.svg'}")
    sys.exit(1 if any(step["unaccounted"] for step in result["steps"]) else 0)


def _measure(stack: RunningStack, rates: list[int], seconds: int) -> dict[str, Any]:
    simulator = Simulator(str(stack.endpoints.stripe_api_url))
    with console.status("measuring this machine's ceilings"):
        limits = {
            "db_inserts_per_s": round(ceilings.db_inserts_per_s(stack.endpoints.database_url)),
            "celery_noops_per_s": round(ceilings.celery_noops_per_s(stack.endpoints.redis_url)),
        }
    simulator.latency(GATEWAY.p50_ms, GATEWAY.p99_ms)
    steps = []
    with watching(stack.endpoints.kafka_bootstrap_servers) as outcomes:
        with console.status("warming up"):
            _step(stack, outcomes, WARM_UP_PER_S, WARM_UP_S, Progress(disable=True))
        with Progress(console=console) as progress:
            steps = [_step(stack, outcomes, rate, seconds, progress) for rate in rates]
        memory = _memory_mb(stack)
        with console.status("joining orders, payments, charges and events row by row"):
            books = accounts.gather(stack.endpoints.database_url, simulator)
            rows = [_row(step, seconds, outcomes, books) for step in steps]
    return {
        "steps": rows,
        "ceilings": limits,
        "rss_mb": memory,
        "stripe_max_rps": os.environ.get("STRIPE_MAX_RPS") or None,
    }


def _step(stack: RunningStack, outcomes: Outcomes, rate_per_s: int, seconds: int, progress: Progress) -> Step:
    bar = progress.add_task(f"{rate_per_s:4}/s answered", total=rate_per_s * seconds)
    began = time.monotonic()
    arrivals = send(
        str(stack.endpoints.api_url), rate_per_s, seconds, lambda: progress.update(bar, advance=1)
    )
    accepted = {each.order_id for each in arrivals if each.status in accounts.ACCEPTED}
    bar = progress.add_task(f"{rate_per_s:4}/s outcomes", total=len(accepted))
    until = time.monotonic() + DRAIN_TIMEOUT_S
    while (done := len(accepted & outcomes.by_order.keys())) < len(accepted) and time.monotonic() < until:
        outcomes.collect()
        progress.update(bar, completed=done)
        time.sleep(0.02)
    progress.update(bar, completed=len(accepted & outcomes.by_order.keys()))
    return Step(rate_per_s, arrivals, began)


def _row(step: Step, seconds: int, outcomes: Outcomes, books: accounts.Books) -> dict[str, Any]:
    ended = step.began + seconds
    accepted = [each for each in step.arrivals if each.status in accounts.ACCEPTED]
    seen = {
        each.order_id: outcomes.by_order[each.order_id][0].at
        for each in accepted
        if each.order_id in outcomes.by_order
    }
    end_to_end = [(seen[each.order_id] - each.due) * 1000 for each in accepted if each.order_id in seen]
    added = [
        (seen[each.order_id] - each.due - GATEWAY.draw_s(books.key_of_order[each.order_id])) * 1000
        for each in accepted
        if each.order_id in seen
    ]
    return {
        "offered_per_s": step.rate_per_s,
        "accepted_per_s": round(sum(each.answered <= ended for each in accepted) / seconds, 1),
        "completed_per_s": round(sum(at <= ended for at in seen.values()) / seconds, 1),
        "create_ms": _quantiles([(each.answered - each.due) * 1000 for each in accepted]),
        "end_to_end_ms": _quantiles(end_to_end),
        "added_ms": _quantiles(added),
        "unaccounted": len(accounts.unaccounted(step.arrivals, books, outcomes)),
    }


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
