"""Seeded simulations of the whole service: what must hold holds, and a seed can be seen again."""

import os
from collections import Counter
from typing import Final

import pytest

from tests.conftest import Servers
from tests.simulation.doors import DOORS
from tests.simulation.harness import make_template
from tests.simulation.processes import simulating
from tests.simulation.seed import Run

SEEDS: Final = 250
# What seeds among them have found; they stay in the run.
FOUND: Final = {
    166: "ours succeeds before the failure of the dashboard's refund that made room for it is known"
}
WORKERS: Final = 2


@pytest.fixture(scope="module")
def server_url(servers: Servers) -> str:
    """Return a server that has the template of the simulated databases."""
    make_template(servers.database_url)
    return servers.database_url


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulating processes measure no coverage, which would make each of them twice as slow."""
    for name in [each for each in os.environ if each.startswith("COVERAGE_PROCESS")]:
        monkeypatch.delenv(name)


def told(run: Run) -> str:
    """Say what did not hold, and how to see it again."""
    problems = "\n".join(f"  {name}: {problem}" for name, problem in run.broken)
    return f"seed {run.seed} (again: make simulate SEED={run.seed}):\n{problems}"


def test_every_seed_holds(server_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever crashes, is lost or comes twice: every invariant holds at each look and at the end."""
    with simulating(server_url, WORKERS) as runs:
        done = list(runs(range(SEEDS)))
    counts = sum((Counter(run.counts) for run in done), Counter())
    crashes = sum(count for name, count in counts.items() if name.startswith("crash"))
    with capsys.disabled():
        steps = sum(len(run.trace) for run in done)
        print(f"\nsimulation: {len(done)} seeds, {steps:,} steps, {crashes:,} crashes")
    assert len(done) == SEEDS > max(FOUND)
    assert crashes
    assert all(counts[f"door: {each}"] for each in DOORS)
    assert counts["webhooks taken"]
    assert counts["callbacks taken"]
    assert "\n".join(told(run) for run in done if run.broken) == ""


def test_a_seed_takes_the_same_steps_again(server_url: str) -> None:
    """The same seeds lead to the same steps, in another process, on another database, after other seeds."""
    again = [7, 19, 27, 42, 77]
    with simulating(server_url, 1) as runs:
        first = {run.seed: run.trace for run in runs(again)}
    with simulating(server_url, 1) as runs:
        second = {run.seed: run.trace for run in runs([3, *reversed(again)])}
    assert {seed: second[seed] for seed in again} == first
    assert len(Counter(map(len, first.values()))) > 1, "different seeds take different steps"
