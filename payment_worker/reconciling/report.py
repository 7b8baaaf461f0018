"""Breaks as rows for people and programs: a table's, a CSV's, a JSON document's."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import simplejson

from payment_worker.reconciling.breaks import Break
from shared.events import rfc3339

COLUMNS = (
    "id", "object", "ref", "kind", "reason", "paymentId", "repair", "firstSeen", "lastSeen", "resolvedAt",
    "resolution", "acceptedAt", "acceptedBy", "acceptedReason", "runId", "lastRunId", "ours", "theirs",
)  # fmt: skip
FORMATS = (".csv", ".json")
# A spreadsheet would take a text that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def row_of(found: Break) -> dict[str, Any]:
    """A break with everything that is known of it."""
    return {
        "id": str(found.id),
        "object": found.object,
        "ref": found.ref,
        "kind": found.kind,
        "reason": found.reason,
        "paymentId": str(found.payment_id) if found.payment_id else None,
        "repair": found.repair,
        "firstSeen": rfc3339(found.first_seen),
        "lastSeen": rfc3339(found.last_seen),
        "resolvedAt": rfc3339(found.resolved_at) if found.resolved_at else None,
        "resolution": found.resolution,
        "acceptedAt": rfc3339(found.accepted_at) if found.accepted_at else None,
        "acceptedBy": found.accepted_by,
        "acceptedReason": found.accepted_reason,
        "runId": str(found.run_id),
        "lastRunId": str(found.last_run_id),
        "ours": found.ours,
        "theirs": found.theirs,
    }


def export(path: Path, found: Iterable[Break]) -> int:
    """Write breaks to a file, CSV or JSON by its name, one at a time; return how many. Raises OSError."""
    with path.open("w", encoding="utf-8", newline="") as file:
        return _as_csv(file, found) if path.suffix.lower() == ".csv" else _as_json(file, found)


def _as_csv(file: Any, found: Iterable[Break]) -> int:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    count = 0
    for count, each in enumerate(found, 1):  # noqa: B007 - the last one is how many there were
        row = row_of(each)
        told = {name: simplejson.dumps(row[name]) for name in ("ours", "theirs") if row[name]}
        writer.writerow({name: _harmless(value) for name, value in (row | told).items()})
    return count


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _as_json(file: Any, found: Iterable[Break]) -> int:
    count = 0
    file.write("[")
    for count, each in enumerate(found, 1):
        file.write(("," if count > 1 else "") + "\n" + simplejson.dumps(row_of(each)))
    file.write("\n]\n")
    return count
