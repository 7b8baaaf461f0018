"""Hold the image against the lock files, the supported Python versions and what must not be in it."""

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "deploy/docker/Dockerfile").read_text()
# Continued lines put together, comments left out.
LINES: Final = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALL: Final = re.compile(r"pip (?:--python \S+ )?(?:install|wheel) [^&]*")


def stages() -> dict[str, list[str]]:
    """Return the lines of each stage, its FROM first, by name."""
    found: dict[str, list[str]] = {}
    for line in LINES:
        if line.startswith("FROM "):
            found[line.split()[-1]] = []
        if found and line:
            found[list(found)[-1]].append(line)
    return found


def lineage(stage: str) -> list[str]:
    """Return the lines of a stage after those of the stages that it is made from."""
    lines = stages()[stage]
    origin = lines[0].split()[1]
    return [*(lineage(origin) if origin in stages() else []), *lines]


def copied() -> list[str]:
    """Return what is copied from the checkout."""
    copies = [line.split()[1:] for line in LINES if line.startswith("COPY ")]
    plain = [
        [word for word in words if not word.startswith("--")] for words in copies if "--from" not in words[0]
    ]
    return [source for words in plain for source in words[:-1]]


@pytest.mark.parametrize("target", ["service", "simulator"])
def test_runs_as_an_account_without_rights(target: str) -> None:
    """The last USER of each image that runs is a number above those of a system's own accounts."""
    users = [line.split()[1] for line in lineage(target) if line.startswith("USER ")]
    assert re.fullmatch(r"([1-9]\d{4,}):\1", users[-1])


def test_targets_are_those_that_compose_builds() -> None:
    """Compose asks for stages that exist, and the service's own is what a plain build makes."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    targets = {service["build"]["target"] for service in services.values() if "build" in service}
    assert targets == {"service", "simulator"}
    assert list(stages())[-1] == "service"
    build = services["migrate"]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).read_text() == TEXT


def test_python_is_pinned_and_supported() -> None:
    """All stages use one slim glibc image of a Python that the project supports."""
    images = {lines[0].split()[1] for lines in stages().values()} - set(stages())
    assert len(images) == 1
    version = re.fullmatch(r"python:(3\.\d+)-slim-\w+", images.pop())
    assert version is not None
    number = tuple(map(int, version[1].split(".")))
    least = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    readme = re.search(r"CPython (3\.\d+) to (3\.\d+)", (ROOT / "README.md").read_text())
    assert readme is not None
    assert least == tuple(map(int, readme[1].split(".")))
    assert least <= number <= tuple(map(int, readme[2].split(".")))


def test_everything_installed_is_locked_by_hash() -> None:
    """What comes from a package index is named by a lock file with its hash; our own code comes from none."""
    installs = [command for line in LINES for command in INSTALL.findall(line)]
    assert len(installs) == 5  # the service, its build tool, its wheel made and installed, the simulator
    for command in installs:
        if "--no-index" in command:
            assert "--no-deps" in command
            continue
        assert "--require-hashes --only-binary :all:" in command
        assert re.search(r"--(requirement|constraint) \S*locks/(runtime|local)\.txt", command)


def test_only_named_folders_reach_the_image() -> None:
    """Each COPY names what it takes; the build sees nothing beside it, and no secrets and no tests."""
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    seen = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[0] == "*"
    assert set(copied()) == seen
    assert not any(re.search(r"secret|\.env|\.git|\.venv|tests", each) for each in seen)
    assert not any(line.startswith("ADD ") for line in LINES)
    assert not re.search("PASSWORD|TOKEN|_KEY|SECRET", TEXT)
