"""Print what a run has shown."""

from typing import Any, Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

SHOWN: Final = 20  # findings
WRONG: Final = ("unaccounted", "open")
ENDS: Final = ("charged", "refunded", "cancelled", "declined")
TOLD: Final = ("events", "processed", "notified", "callbacks")
COUNTED: Final = ("accepted", *ENDS, *TOLD, *WRONG)


def show(console: Console, runs: dict[str, dict[str, Any]]) -> None:
    """Print a table of strikes and recoveries for each broker, then the orders, then what is wrong."""
    for broker, run in runs.items():
        console.print(_strikes(broker, run))
    console.print(_orders(runs))
    for run in runs.values():
        for each in run["findings"][:SHOWN]:
            console.print(f"[red]{each['kind']}[/] [dim]{each['subject']}[/]: {escape(each['says'])}")
        if (more := len(run["findings"]) - SHOWN) > 0:
            console.print(f"[red]and {more} more[/]")


def _strikes(broker: str, run: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"Broker: {broker}; recovery in seconds")
    table.add_column("killed")
    for head in ("times", "p50", "max"):
        table.add_column(head, justify="right")
    for kind, row in run["by_kind"].items():
        table.add_row(kind, str(row["kills"]), _seconds(row["p50_s"]), _seconds(row["max_s"]))
    table.add_row("[bold]all[/]", str(len(run["kills"])), "", "")
    return table


def _orders(runs: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("broker")
    for broker in runs:
        table.add_column(broker, justify="right")
    for name in COUNTED:
        table.add_row(name, *(_counted(name, run[name]) for run in runs.values()))
    return table


def _counted(name: str, count: int) -> str:
    wrong = count and name in WRONG
    return f"[bold red]{count:,}[/]" if wrong else f"{count:,}"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"
