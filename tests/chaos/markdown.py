"""A report's tables as Markdown, for the README: `python -m tests.chaos.markdown chaos.json`."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.chaos.report import COUNTED
from tests.chaos.schedule import Kind


def tables(report: dict[str, Any]) -> Iterator[str]:
    """The lines of two tables: recovery by kind and broker, and how every order is accounted for."""
    runs: dict[str, dict[str, Any]] = report["runs"]
    heads = [f"{broker}: {head}" for broker in runs for head in ("kills", "p50, s", "max, s")]
    yield from _head(["killed", *heads])
    for kind in Kind:
        rows = [run["by_kind"].get(kind, {}) for run in runs.values()]
        if any(rows):
            yield _line([kind, *(_cell(row, name) for row in rows for name in ("kills", "p50_s", "max_s"))])
    yield ""
    yield from _head(["broker", *COUNTED])
    for broker, run in runs.items():
        yield _line([broker, *(f"{run[name]:,}" for name in COUNTED)])


def _head(names: list[str]) -> Iterator[str]:
    yield _line(names)
    yield _line("---" for _ in names)


def _cell(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(tables(json.loads(Path(sys.argv[1]).read_text("utf-8")))))
