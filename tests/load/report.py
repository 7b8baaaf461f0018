"""Print a benchmark's figures for people."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

HEADS = (
    ("offered/s", "offered_per_s", None),
    ("taken/s", "accepted_per_s", None),
    ("done/s", "completed_per_s", None),
    ("create 50", "create_ms", "p50"),
    ("99", "create_ms", "p99"),
    ("whole 50", "end_to_end_ms", "p50"),
    ("99", "end_to_end_ms", "p99"),
    ("added 50", "added_ms", "p50"),
    ("99", "added_ms", "p99"),
    ("lost", "unaccounted", None),
)


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the steps, the memory, and how near the best step comes to this machine's ceilings."""
    table = Table(
        box=box.SIMPLE_HEAD, title="Milliseconds at p50 and p99; the gateway itself takes 120 and 380"
    )
    table.add_column("load")
    for head, _, _ in HEADS:
        table.add_column(head, justify="right")
    for step in result["steps"]:
        table.add_row(
            step["mix"],
            *(str(step[group] if part is None else step[group][part]) for _, group, part in HEADS),
        )
    console.print(table)
    if any(step["mix"] == "mixed" for step in result["steps"]):
        console.print(
            "mixed: 70 % charges, 15 % holds and their capture, 15 % charges and a refund; whole orders"
        )
    if result["strangers"]:
        console.print(f"[red]{result['strangers']} things at the gateway or on Kafka belong to no order[/]")
    limit = result["stripe_max_rps"]
    said = f"STRIPE_MAX_RPS={limit}" if limit else "unlimited, for STRIPE_MAX_RPS is not set"
    console.print(f"the request budget toward the gateway: {said}")
    memory = ", ".join(f"{name} {size:g}" for name, size in result["rss_mb"].items())
    console.print(f"memory, MB: {memory}; together {sum(result['rss_mb'].values()):.0f}")
    # A mixed order is more than one operation, and no measure of the ceilings.
    charges = [step["completed_per_s"] for step in result["steps"] if step["mix"] == "charges"]
    best = max(charges, default=0.0)
    for name, ceiling in result["ceilings"].items():
        console.print(
            f"{name.replace('_per_s', '').replace('_', ' ')}: {ceiling}/s; "
            f"the best step completes {best / ceiling:.0%} of that"
        )
