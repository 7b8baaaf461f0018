"""Run every test on the embedded stack, unit first and end to end last, and report the coverage.

Unit and integration tests run in two processes, each with servers of its own; those that kill processes for
real have the machine to themselves.

Arguments are passed on to pytest: `python -m tests tests/unit -k money`. The coverage must reach its limit
only when everything was run. With `--apache-kafka` what uses servers runs on Apache Kafka in place of the
embedded broker, together with the tests that only it can pass; the coverage is not measured then.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import coverage
import pytest

ROOT = Path(__file__).parents[1]
CONFIGURATION = str(ROOT / "pyproject.toml")
TIERS = ("tests/unit", "tests/integration")
APACHE_KAFKA = "--apache-kafka"
APACHE_KAFKA_TIERS = ("tests/integration",)
# A file's tests stay in one process, which starts what they share once.
SIDE_BY_SIDE = ("--numprocesses=2", "--dist=loadfile")
NOTHING_TO_DO = pytest.ExitCode.NO_TESTS_COLLECTED
RAN = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, NOTHING_TO_DO)
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: list[str]) -> int:
    """Run pytest with `arguments`; return the exit status: 0 only when all passed and enough was covered."""
    os.chdir(ROOT)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    # In the background of a script it is ignored, and everything that a test starts would ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if APACHE_KAFKA in arguments:
        return on_apache_kafka([each for each in arguments if each != APACHE_KAFKA])
    measured = coverage.Coverage(config_file=CONFIGURATION)
    measured.erase()
    # From here on every Python process that a test starts measures itself too.
    measured.start()
    status = run(arguments, TIERS, ("tests/e2e",))
    measured.stop()
    if status == pytest.ExitCode.INTERRUPTED:
        measured.erase()
        return INTERRUPTED
    measured.save()
    covered = report()
    if status == pytest.ExitCode.OK and not arguments and not covered:
        return 1
    return int(status)


def on_apache_kafka(arguments: list[str]) -> int:
    """Fetch Apache Kafka unless it is there, and run pytest on it; return the exit status."""
    if subprocess.run([sys.executable, "-m", "deploy.kafka"], check=False).returncode:
        return 1
    os.environ["BROKER"] = "apache"  # every stack that a test starts inherits it
    status = run(arguments, APACHE_KAFKA_TIERS, ("tests/kafka", "tests/e2e"))
    return INTERRUPTED if status == pytest.ExitCode.INTERRUPTED else int(status)


def run(arguments: list[str], together: tuple[str, ...], alone: tuple[str, ...]) -> int:
    """Run pytest on the tests that the arguments name, else on all: some side by side, some by themselves."""
    if names_tests(arguments):
        return pytest.main(arguments)
    statuses = []
    for options in ((*SIDE_BY_SIDE, *together), alone):
        statuses.append(pytest.main([*arguments, *options]))
        if statuses[-1] not in RAN:
            break
    # Arguments may choose tests of one part only; the other one then has none.
    return max(status for status in statuses if status != NOTHING_TO_DO or len(set(statuses)) == 1)


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
