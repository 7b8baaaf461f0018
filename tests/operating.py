"""Run `payment-worker` as an operator does, in this test's environment."""

import atexit
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

from tests.waiting import LONGEST_S

COMMAND: Final = Path(sys.executable).parent / "payment-worker"
ROOT: Final = Path(__file__).parents[1]


@cache
def _forker() -> "subprocess.Popen[str]":
    """Start what runs the commands, once for all tests of this process; it ends with this process."""
    argv = [sys.executable, "-m", "tests.forker"]
    forker = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(forker.communicate)  # closes its standard input, and waits
    return forker


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in a process of its own."""
    forker = _forker()
    assert forker.stdin is not None
    assert forker.stdout is not None
    argv = [str(COMMAND), *words]
    asked = {"argv": argv, "environment": dict(os.environ), "folder": str(Path.cwd())}
    forker.stdin.write(json.dumps(asked) + "\n")
    forker.stdin.flush()
    done = json.loads(forker.stdout.readline())
    return subprocess.CompletedProcess(argv, **done)


def operate(*words: str) -> tuple[int, str]:
    """Run the command; return its exit status and everything that it has said."""
    done = run(*words)
    return done.returncode, done.stdout + done.stderr


def migrate_in_vain(database_url: str, *options: str) -> str:
    """Run `payment-api migrate`, which must end with status 1; return what it has told in its log."""
    ended = subprocess.run(
        [COMMAND.with_name("payment-api"), "migrate", *options],
        env={**os.environ, "DATABASE_URL": database_url, "LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_S,
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    return ended.stdout
