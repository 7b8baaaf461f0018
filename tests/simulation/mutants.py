"""Take one guard away at a time, and simulate until a seed notices: python -m tests.simulation.mutants."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from tests.simulation.door_guards import DOOR_GUARDS
from tests.simulation.guards import GUARDS, ROOT, Guard, guard_named, remove

README: Final = ROOT / "README.md"
BEGIN, END = "<!-- mutants: begin -->\n", "<!-- mutants: end -->"
EVERY_GUARD: Final = (*GUARDS, *DOOR_GUARDS)
ONE: Final = "--without"  # how this program calls itself for one guard

console = Console(width=110, highlight=False)


@click.command()
@click.option("--seeds", default=600, show_default=True, help="at most so many for each guard")
@click.option("--workers", default=os.cpu_count() or 1, show_default=True, help="guards at a time")
@click.option("--only", help="only guards whose names have this in them")
@click.option("--server-url", help="a PostgreSQL to use, where databases may be made")
@click.option("--readme", is_flag=True, help="write the rows of these guards into the README's table")
@click.option(ONE, "without", hidden=True)
def main(
    *, seeds: int, workers: int, only: str | None, server_url: str | None, readme: bool, without: str | None
) -> None:
    """Show for each guard which seed notices that it is missing; exits with 1 when none does."""
    if without:
        _simulate(guard_named(without, EVERY_GUARD), seeds, str(server_url))
        return
    from tests.simulation.__main__ import server
    from tests.simulation.harness import make_template

    guards = [each for each in EVERY_GUARD if not only or only in each.name]
    with server(server_url) as url:
        make_template(url)
        found = _all(guards, seeds, workers, url)
    unnoticed = _show(found, seeds)
    if readme:
        README.write_text(told(README.read_text(encoding="utf-8"), found, seeds), encoding="utf-8")
    sys.exit(1 if unnoticed else 0)


def _simulate(guard: Guard, seeds: int, server_url: str) -> None:
    """Simulate without the guard until a seed notices; print what became of it as one line of JSON."""
    remove(guard)
    import psycopg

    from tests.simulation.harness import drop_database, harness, make_database
    from tests.simulation.seed import run_seed

    name = f"mutant_{os.getpid()}"
    try:
        url = make_database(server_url, name)
        with psycopg.connect(url, autocommit=True) as database:
            for statement in guard.statements:
                database.execute(statement)
        with harness(url) as made:
            for seed in range(seeds):
                if run := run_seed(made, seed).broken:
                    print(json.dumps({"seed": seed, "broken": run[:3]}))
                    return
        print(json.dumps({"seed": None}))
    finally:
        drop_database(server_url, name)


def _all(guards: list[Guard], seeds: int, workers: int, url: str) -> list[tuple[Guard, dict[str, Any]]]:
    began = time.monotonic()

    def one(guard: Guard) -> tuple[Guard, dict[str, Any]]:
        argv = [sys.executable, "-m", "tests.simulation.mutants", "--seeds", str(seeds), ONE, guard.name]
        ended = subprocess.run(
            [*argv, "--server-url", url], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            raise click.ClickException(f"{guard.name}: {ended.stderr}")
        said: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        noticed = "NOT NOTICED" if said["seed"] is None else f"seed {said['seed']}: {said['broken'][0][0]}"
        console.print(f"{time.monotonic() - began:6.0f} s  {guard.name}: {noticed}", markup=False)
        return guard, said

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, guards))


def _show(found: list[tuple[Guard, dict[str, Any]]], seeds: int) -> int:
    table = Table(title="Each guard taken away in turn")
    for head in ("guard", "seeds until noticed", "what no longer held"):
        table.add_column(head, justify="right" if head.startswith("seeds") else "left")
    unnoticed = 0
    for guard, said in found:
        if said["seed"] is None:
            unnoticed += 1
            table.add_row(guard.name, f"> {seeds}", "[bold red]nothing noticed it[/bold red]")
        else:
            table.add_row(guard.name, str(said["seed"] + 1), said["broken"][0][0])
    console.print(table)
    console.print(f"{len(found)} guards, {unnoticed} not noticed")
    return unnoticed


def told(text: str, found: list[tuple[Guard, dict[str, Any]]], seeds: int) -> str:
    """A README whose table has what was found in this run; the rows of other guards stay as they are."""
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    rows = {line.split(" | ")[0][2:]: line for line in lines[2:]}
    for guard, said in found:
        noticed = said["seed"] is not None
        what = (said["seed"] + 1, said["broken"][0][0]) if noticed else (f"> {seeds}", "**not noticed**")
        rows[guard.name] = f"| {guard.name} | {what[0]} | {what[1]} |"
    whole = [*lines[:2], *(rows[each.name] for each in EVERY_GUARD if each.name in rows)]
    return before + BEGIN + "\n".join(whole) + "\n" + END + after


if __name__ == "__main__":
    main()
