"""Draw latency against load."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

LINES = (
    ("create_ms", "p50", "POST /payments answered, p50", "#1b6ca8", "o-"),
    ("create_ms", "p99", "POST /payments answered, p99", "#1b6ca8", "o--"),
    ("added_ms", "p50", "added by the platform, p50", "#2e8b57", "s-"),
    ("added_ms", "p99", "added by the platform, p99", "#2e8b57", "s--"),
    ("end_to_end_ms", "p50", "order sent to payment-succeeded, p50", "#8b3a62", "^-"),
    ("end_to_end_ms", "p99", "order sent to payment-succeeded, p99", "#8b3a62", "^--"),
)


def draw(steps: list[dict[str, Any]], path: Path) -> None:
    """Write an SVG of each step's latencies (ms, logarithmic) against the offered load (orders/s)."""
    mpl.rcParams["svg.hashsalt"] = "benchmark"  # the same figures make the same file
    figure, axes = plt.subplots(figsize=(8, 4.5))
    offered = [step["offered_per_s"] for step in steps]
    for group, quantile, label, color, style in LINES:
        axes.plot(offered, [step[group][quantile] for step in steps], style, color=color, label=label)
    axes.set(xlabel="orders per second offered", ylabel="milliseconds", yscale="log", xticks=offered)
    axes.set_title("Latency against load: two cores for everything, gateway p50 120 ms / p99 380 ms")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize="small", ncols=2, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
