"""Print a benchmark's figures for people."""

from typing import Any

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
    table = Table(title="Milliseconds at p50 and p99; the gateway itself takes 120 and 380")
    for head, _, _ in HEADS:
        table.add_column(head, justify="right")
    for step in result["steps"]:
        table.add_row(*(str(step[group] if part is None else step[group][part]) for _, group, part in HEADS))
    console.print(table)
    limit = result["stripe_max_rps"]
    said = f"STRIPE_MAX_RPS={limit}" if limit else "unlimited, for STRIPE_MAX_RPS is not set"
    console.print(f"the request budget toward the gateway: {said}")
    memory = ", ".join(f"{name} {size:g}" for name, size in result["rss_mb"].items())
    console.print(f"memory, MB: {memory}; together {sum(result['rss_mb'].values()):.0f}")
    best = max(step["completed_per_s"] for step in result["steps"])
    for name, ceiling in result["ceilings"].items():
        console.print(
            f"{name.replace('_per_s', '').replace('_', ' ')}: {ceiling}/s; "
            f"the best step completes {best / ceiling:.0%} of that"
        )
