"""Simulating processes side by side, each with a database of its own."""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.simulation.harness import drop_database, harness, make_database
from tests.simulation.seed import Run, run_seed

LOOK_EVERY_S: Final = 1.0

Runs = Callable[[Iterable[int]], Iterator[Run]]


@contextmanager
def simulating(url: str, workers: int) -> Iterator[Runs]:
    """Within the block a function from seeds to what became of them, in the order in which they are done."""
    context = multiprocessing.get_context("spawn")
    seeds: Any = context.Queue()
    runs: Any = context.Queue()
    names = [f"simulation_{os.getpid()}_{number}" for number in range(workers)]
    made = [
        context.Process(target=_work, args=(make_database(url, name), seeds, runs), daemon=True)
        for name in names
    ]

    def run(wanted: Iterable[int]) -> Iterator[Run]:
        count = 0
        for seed in wanted:
            seeds.put(seed)
            count += 1
        for _ in range(count):
            yield _next(runs, made)

    try:
        for process in made:
            process.start()
        yield run
    finally:
        for process in made:
            process.terminate()
            process.join()
        for name in names:
            drop_database(url, name)


def _next(runs: Any, processes: list[Any]) -> Run:
    while True:
        try:
            run: Run = runs.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            if not all(each.is_alive() for each in processes):
                raise RuntimeError("a simulating process has died; what it said stands above") from None
        else:
            return run


def _work(database_url: str, seeds: Any, runs: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever has started this one ends it
    with harness(database_url) as made:
        while True:
            runs.put(run_seed(made, seeds.get()))
