"""What a person sees while it runs: a line for each strike and its recovery, and bars."""

import time
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from tests.chaos.run import Blow, Run

WIDTH: Final = 110  # where there is no terminal to have another


def make_console() -> Console:
    """The console for standard output."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


class Screen:
    """Lines with their time, above two bars."""

    def __init__(self, console: Console, strikes: int) -> None:
        """Seconds are counted from now."""
        self._began = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description:<9}", style="bold"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[says]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
        )
        self._strikes = self._bars.add_task("strikes", total=strikes, says="recovered from")
        self._orders = self._bars.add_task("orders", total=0, says="have come to their end")

    def __enter__(self) -> Self:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave them standing as they are."""
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self._bars.console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/] {text}", soft_wrap=True)

    def struck(self, number: int, blow: "Blow") -> None:
        """Say what was just done."""
        self.say(f"{number:3} [bold]{blow.strike.kind}[/]: {escape(blow.says)}")

    def recovered(self, blow: "Blow") -> None:
        """Say how long it took, or that it goes on meanwhile."""
        part = "not back yet" if blow.back_s is None else f"back after {blow.back_s:.1f} s"
        probe = "still open" if blow.probe_s is None else f"heard of after {blow.probe_s:.1f} s"
        self.say(f"    {part}; an order placed then: {probe}")
        self._bars.advance(self._strikes)

    def show(self, run: "Run") -> None:
        """Bring the bar of the orders up to date."""
        begun = len(run.load.cases)
        self._bars.update(self._orders, total=begun, completed=begun - run.load.under_way())
