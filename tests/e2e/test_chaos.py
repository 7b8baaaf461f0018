"""`make chaos`, made short: parts die under load, and every order is accounted for."""

import json
import subprocess
import sys
from pathlib import Path

from tests.chaos.courses import CATALOG, TOLD_BACK
from tests.stacks import ROOT, environment

KILLS = 4
# The task worker dies first, so that what it had in hand for subscribers comes back meanwhile; then among
# others the broker, with its data.
SEED = 945
LONGEST_S = 900.0  # some thirty seconds on a machine that is not busy
# Short, so that the test need not wait; the relations between them are those of the defaults.
HASTE = {"LEASE_S": "3", "RECOVERY_AFTER_S": "1", "VERIFY_ABSENCE_S": "2"}


def test_every_order_is_accounted_for_whatever_dies(tmp_path: Path) -> None:
    """Four parts die: the exit status is 0, and the report holds each of them and nothing that is missing.

    The catalog, a subscriber and the delivery contract's order service have heard of all that is theirs.
    """
    told = environment(tmp_path, KILLS=str(KILLS), SEED=str(SEED), RATE="5", **HASTE)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.chaos"],
        cwd=ROOT,
        env=told,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"SEED={SEED}" in ended.stdout
    report = json.loads((tmp_path / "chaos.json").read_text("utf-8"))
    (run,) = report["runs"].values()
    assert len({each["kind"] for each in run["kills"]}) == len(run["kills"]) == KILLS
    assert {kind: row["kills"] for kind, row in run["by_kind"].items()} == {
        each["kind"]: 1 for each in run["kills"]
    }
    assert (report["unaccounted"], report["open"], run["findings"]) == (0, 0, [])
    assert report["accepted"] == sum(run["orders"].values()) > KILLS
    assert report["charged"] + report["cancelled"] + report["declined"] == report["accepted"]
    assert report["notified"] >= report["events"] + report["accepted"]
    for name, courses in (("processed", CATALOG), ("callbacks", TOLD_BACK)):
        assert report[name] == sum(run["orders"].get(course, 0) for course in courses)
