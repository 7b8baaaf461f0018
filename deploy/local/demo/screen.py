"""What a person sees while the demo runs: a line for each thing done, a bar for each kind of order."""

import threading
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from deploy.local.demo.orders import Kind
from deploy.local.ordering import Outcome, Verdict

WIDTH = 100  # of the tables, where the terminal has it; of everything, where there is no terminal


def make_console() -> Console:
    """The console for standard output, as wide as the tables unless a terminal is narrower."""
    console = Console(highlight=False)
    return Console(highlight=False, width=min(WIDTH, console.width) if console.is_terminal else WIDTH)


class Screen:
    """Bars that fill as outcomes are heard on Kafka, and above them what was done, with its time."""

    def __init__(self, console: Console, began: float) -> None:
        """`began` is the time.monotonic() from which seconds are counted."""
        self.console = console
        self._began = began
        self._guard = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} events heard on Kafka", style="dim"),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> Self:
        """Show the bars."""
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave them standing as they are."""
        self._progress.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line with the seconds since the beginning."""
        line = Table.grid(padding=(0, 1))
        line.add_row(f"[dim]{time.monotonic() - self._began:5.1f} s[/]", Text(text, style))
        self.console.print(line)

    def begin(self, kind: Kind) -> None:
        """Show a bar for a kind of orders; said again, it is also for those that were added to the kind."""
        ids = [case.order.order_id for case in kind.cases]
        with self._guard:
            bar = self._bars.get(ids[0])
            if bar is None:
                bar = self._progress.add_task(f"{kind.title:<19}")
            self._progress.update(bar, total=sum(len(case.events) for case in kind.cases))
            self._bars |= dict.fromkeys(ids, bar)

    def heard(self, outcome: Outcome, verdict: Verdict) -> None:
        """Fill the order's bar a step for an event that was not heard before."""
        with self._guard:
            bar = self._bars.get(outcome.data["orderId"])
        if bar is not None and verdict != "repeat":
            self._progress.advance(bar)
