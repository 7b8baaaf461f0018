"""The first thing that a newcomer's command does: find a usable Python, or say what to install."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import LONGEST_S

ROOT = Path(__file__).parents[2]
REFUSES = "#!/bin/sh\nexit 1\n"
# Passes for the Python that runs the tests; makes a folder instead of an environment, and installs nothing.
RECORDS = """#!/bin/sh
[ "$1" = -c ] && exec {python} "$@"
echo "{name} $*" >>{record}
[ "$2" = venv ] && {mkdir} -p "$3/bin" && {copy} "$0" "$3/bin/python"
exit 0
"""


class Machine:
    """A machine whose only programs are `rm` and what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "programs"
        self.venv = folder / "venv"
        self._record = folder / "record"
        self._record.touch()
        self.programs.mkdir()
        (self.programs / "rm").symlink_to(str(shutil.which("rm")))

    def broken(self, name: str) -> None:
        """Put a Python there that is too old, or that can make no virtual environment."""
        self._put(name, REFUSES)

    def working(self, name: str) -> None:
        """Put a Python there that is good, and that records what it is asked to do."""
        programs = {"mkdir": shutil.which("mkdir"), "copy": shutil.which("cp")}
        self._put(name, RECORDS.format(python=sys.executable, name=name, record=self._record, **programs))

    def _put(self, name: str, script: str) -> None:
        (self.programs / name).write_text(script, encoding="utf-8")
        (self.programs / name).chmod(0o755)

    def install(self, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the installation of the local stack's packages."""
        return subprocess.run(
            ["/bin/sh", ".ci/install", "local", str(self.venv)],
            cwd=ROOT,
            env={"PATH": str(self.programs), **settings},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )

    @property
    def asked(self) -> list[str]:
        """What the working ones were asked to do, in order."""
        return self._record.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without any Python."""
    return Machine(tmp_path)


def test_without_a_python_it_says_what_to_install(machine: Machine) -> None:
    """The version, the packages' names on each system, and how to name one's own; nothing is made."""
    refused = machine.install()
    assert refused.returncode == 1
    for named in ("Python 3.11 or newer", "apt install python3 python3-venv", "brew install", "PYTHON="):
        assert named in refused.stderr
    assert not machine.venv.exists()


def test_a_python_that_does_not_work_is_passed_over(machine: Machine) -> None:
    """A `python3` without venv or too old is no reason to give up when another name has a good one."""
    machine.broken("python3")
    machine.broken("python3.13")
    machine.working("python3.12")
    installed = machine.install()
    assert installed.returncode == 0, installed.stderr
    assert f"python3.12 -m venv {machine.venv}" in machine.asked
    installations = [line for line in machine.asked if "pip install" in line]
    assert "--require-hashes" in installations[0]
    assert "deploy/locks/local.txt" in installations[0]
    assert len(installations) == 2  # what is locked, then the project itself
    assert "--no-index" in installations[1]


def test_the_python_that_is_named_comes_first(machine: Machine) -> None:
    """PYTHON is the user's word."""
    machine.working("python3")
    machine.working("chosen")
    assert machine.install(PYTHON="chosen").returncode == 0
    assert f"chosen -m venv {machine.venv}" in machine.asked


def test_an_environment_that_is_there_is_used_again(machine: Machine) -> None:
    """A second installation makes no other environment."""
    machine.working("python3")
    assert [machine.install().returncode for _ in range(2)] == [0, 0]
    assert [line for line in machine.asked if "-m venv" in line] == [f"python3 -m venv {machine.venv}"]
