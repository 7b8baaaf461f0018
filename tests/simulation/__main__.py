"""Simulate seeds, many or one: python -m tests.simulation --seeds 10000, or --seed 17 to see each step of it.

It starts a PostgreSQL of its own, unless it is given one, and nothing else.
"""

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy.local.client import running_stack
from tests.simulation.harness import drop_database, harness, make_database, make_template
from tests.simulation.processes import simulating
from tests.simulation.seed import Run, run_seed

SHOWN_FAILURES: Final = 5
SHOWN_STEPS: Final = 60
INTERRUPTED: Final = 128 + signal.SIGINT

console = Console(width=110, highlight=False)


@click.command()
@click.option("--seeds", default=10_000, show_default=True, help="how many")
@click.option("--first", default=0, show_default=True, help="the first of them")
@click.option("--seed", type=int, help="only this one, with every step")
@click.option("--workers", default=os.cpu_count() or 1, show_default=True, help="processes at a time")
@click.option("--server-url", help="a PostgreSQL to use, where databases may be made")
def main(seeds: int, first: int, seed: int | None, workers: int, server_url: str | None) -> None:
    """Simulate seeds; exits with 1 when something did not hold, and says how to see it again."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with server(server_url) as url:
            make_template(url)
            if seed is not None:
                failed = _replay(url, seed)
            else:
                failed = _many(url, range(first, first + seeds), workers)
    except KeyboardInterrupt:
        console.print("interrupted")
        sys.exit(INTERRUPTED)
    sys.exit(1 if failed else 0)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def server(server_url: str | None) -> Iterator[str]:
    """The URL of the given server, or of one that lasts as long as the block."""
    if server_url:
        yield server_url
        return
    with tempfile.TemporaryDirectory(prefix="simulation") as folder:
        state_dir = Path(folder) / "state"
        with console.status("starting PostgreSQL"), running_stack(state_dir, only_servers=True) as stack:
            url = stack.endpoints.database_url
            yield url


def _replay(url: str, seed: int) -> bool:
    """One seed with all of its steps."""
    name = f"simulation_{os.getpid()}_seed"
    try:
        with harness(make_database(url, name)) as made:
            run = run_seed(made, seed)
    finally:
        drop_database(url, name)
    for number, line in enumerate(run.trace, 1):
        console.print(f"{number:5} {line}", markup=False, soft_wrap=True)
    _tell(run, steps=0)
    console.print(f"seed {seed}: {len(run.trace)} steps, {run.digest}")
    return bool(run.broken)


def _many(url: str, seeds: Iterable[int], workers: int) -> bool:
    wanted = list(seeds)
    began, counts, failures = time.monotonic(), Counter[str](), 0
    steps = 0
    with _progress() as progress, simulating(url, workers) as runs:
        task = progress.add_task("seeds", total=len(wanted), rate="")
        for number, run in enumerate(runs(wanted), 1):
            counts.update(run.counts)
            steps += len(run.trace)
            if run.broken:
                failures += 1
                if failures <= SHOWN_FAILURES:
                    _tell(run, SHOWN_STEPS)
            rate = number / (time.monotonic() - began)
            progress.update(task, advance=1, rate=f"{rate:.1f} seeds/s")
    took_s = time.monotonic() - began
    _show(counts)
    console.print(
        f"{len(wanted)} seeds ({wanted[0]} to {wanted[-1]}), {steps:,} steps in {took_s:.1f} s,"
        f" {len(wanted) / took_s:.1f} seeds/s; {failures} did not hold"
    )
    return failures > 0


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _tell(run: Run, steps: int) -> None:
    if not run.broken:
        return
    console.print(f"\n[bold red]seed {run.seed}[/bold red] does not hold:")
    for name, problem in run.broken:
        console.print(f"  {name}: {problem}", markup=False, soft_wrap=True)
    if steps:
        console.print(f"  its last {steps} of {len(run.trace)} steps:")
        for line in run.trace[-steps:]:
            console.print(f"    {line}", markup=False, soft_wrap=True)
    console.print(f"  again, step by step: make simulate SEED={run.seed}", markup=False)


def _show(counts: Counter[str]) -> None:
    table = Table(title="What happened")
    table.add_column("what")
    table.add_column("times", justify="right")
    for what, times in sorted(counts.items()):
        table.add_row(what, f"{times:,}")
    console.print(table)


if __name__ == "__main__":
    main()
