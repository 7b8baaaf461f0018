"""Run every test on the embedded stack, unit first and end to end last, and report the coverage.

Arguments are passed on to pytest: `python -m tests tests/unit -k money`. The coverage must reach its limit
only when everything was run.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import coverage
import pytest

ROOT = Path(__file__).parents[1]
CONFIGURATION = str(ROOT / "pyproject.toml")
TIERS = ("tests/unit", "tests/integration", "tests/e2e")
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: list[str]) -> int:
    """Run pytest with `arguments`; return the exit status: 0 only when all passed and enough was covered."""
    os.chdir(ROOT)
    measured = coverage.Coverage(config_file=CONFIGURATION)
    measured.erase()
    # From here on every Python process that a test starts measures itself too.
    measured.start()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    status = pytest.main([*arguments, *([] if names_tests(arguments) else TIERS)])
    measured.stop()
    if status == pytest.ExitCode.INTERRUPTED:
        measured.erase()
        return INTERRUPTED
    measured.save()
    covered = report()
    if status == pytest.ExitCode.OK and not arguments and not covered:
        return 1
    return int(status)


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Stop as Ctrl-C does, so that the servers are stopped and nothing is left behind."""
    raise KeyboardInterrupt


def names_tests(arguments: list[str]) -> bool:
    """Tell whether one of the arguments is a file or folder of tests."""
    return any(
        not argument.startswith("-") and (ROOT / argument.partition("::")[0]).exists()
        for argument in arguments
    )


def report() -> bool:
    """Put the measurements of all processes together and print them; return whether they are enough."""
    combined = coverage.Coverage(config_file=CONFIGURATION)
    try:
        combined.combine()
        combined.save()
        total = combined.report()
    except coverage.exceptions.CoverageException as error:
        print(f"no coverage to report: {error}", file=sys.stderr)
        return False
    least = float(str(combined.get_option("report:fail_under") or 0))
    print(f"coverage of the three packages: {total:.1f} % (at least {least:.0f} % wanted)")
    return total >= least


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
