"""Run `payment-worker` as an operator does, in this test's environment."""

import subprocess
import sys
from pathlib import Path
from typing import Final

COMMAND: Final = Path(sys.executable).parent / "payment-worker"
TIMEOUT_S: Final = 300  # a limit for what hangs; a loaded machine takes its time


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run([COMMAND, *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def operate(*words: str) -> tuple[int, str]:
    """Run the command; return its exit status and everything that it has said."""
    done = run(*words)
    return done.returncode, done.stdout + done.stderr
