"""The commands explain themselves, and the README speaks of those that there are."""

import os
import re
import subprocess
from pathlib import Path

from tests.waiting import LONGEST_S

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
PHONY = re.findall(r"^\.PHONY:(.*)$", MAKEFILE, re.MULTILINE)
TARGETS = {name for line in PHONY for name in line.split()}


def test_bare_make_explains_every_target() -> None:
    """Who types `make` alone is shown each target with what it does, and nothing is started."""
    said = subprocess.run(
        ["make"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},  # not what a make says that runs these tests
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=True,
    )
    explained = dict(re.findall(r"^  make (\S+) +(\S.+)$", said.stdout, re.MULTILINE))
    assert {"demo", "run", "test", "check"} <= TARGETS
    assert explained.keys() == TARGETS
    assert len(said.stdout.splitlines()) == len(TARGETS)


def test_the_readme_names_only_targets_that_are_there() -> None:
    """In its tables, its examples and its text."""
    table = set(re.findall(r"^\| `make ([\w-]+)", README, re.MULTILINE))
    examples = set(re.findall(r"^(?:[A-Z_]+=\S+ )*make ([\w-]+)", README, re.MULTILINE))
    text = set(re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z][\w-]*)", README))
    assert len(table) > 10
    assert {"demo", "test"} <= examples
    assert (table | examples | text) - TARGETS == set()
