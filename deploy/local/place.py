"""Where PostgreSQL's files stand and as whom it runs: under root never in reach of root's rights.

PostgreSQL refuses to run as root, so root's stack drops to an existing unprivileged account. Where that
account cannot reach the state folder (below /root, or below a private temporary folder), the data stand in
a private folder elsewhere while the stack runs, and are brought home into the state folder when it ends.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.state import StateFolder, write_private

ACCOUNTS = ("nobody", "daemon", "postgres")  # existing on practically every system; none is created
DATA = "postgres"  # the data folder's name, at home and away
RECORD = "postgres.place"  # names the private folder while the data are away


class NoPlace(Exception):
    """PostgreSQL cannot run here; the message says why and what to set instead."""


@dataclass(frozen=True)
class Account:
    """An unprivileged account of this system."""

    uid: int
    gid: int

    def can(self, test: str, path: Path) -> bool:
        """Whether the account passes the shell's file test (`-x`, `-w`) on `path`; tried, not guessed."""
        return self.runs(["/bin/sh", "-c", f'test {test} "$1"', "sh", str(path)])

    def runs(self, argv: list[str]) -> bool:
        """Whether the program starts as this account and ends well."""
        try:
            result = subprocess.run(argv, cwd="/", capture_output=True, check=False, **identity(self))
        except PermissionError:
            return False
        return result.returncode == 0


def identity(account: Account | None) -> dict[str, Any]:
    """The arguments that make subprocess start a program as the account."""
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def account_for(state: StateFolder) -> Account | None:
    """As whom PostgreSQL is to run: None for ourselves, under root an unprivileged account.

    Data that an ordinary user has made stay with that user. Raises NoPlace when there is no account.
    """
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(FileNotFoundError):
        made_by = (state.path / DATA).stat()
        if made_by.st_uid != 0:
            return Account(made_by.st_uid, made_by.st_gid)
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return Account(found.pw_uid, found.pw_gid)
    names = ", ".join(ACCOUNTS)
    message = f"PostgreSQL does not run as root, and none of {names} is an account here; set DATABASE_URL"
    raise NoPlace(message)


def place_for(state: StateFolder, account: Account | None) -> Path:
    """The folder that holds the data folder for this run; data left away by a crash come home first."""
    bring_home(state)
    if account is None:
        return state.path
    if account.can("-x", state.path):
        _give(state.path / DATA, account)
        return state.path
    away = _private_folder(account)
    write_private(state.path / RECORD, f"{away}\n")
    if (state.path / DATA).exists():
        _move(state.path / DATA, away / DATA)
        _give(away / DATA, account)
    return away


def bring_home(state: StateFolder) -> None:
    """Move data that stand in a private folder back into the state folder and remove that folder."""
    record = state.path / RECORD
    try:
        away = Path(record.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return
    home = state.path / DATA
    if (away / DATA).exists() and not home.exists():  # both: a move was cut off, and they are the same
        _move(away / DATA, home)
    shutil.rmtree(away, ignore_errors=True)
    shutil.rmtree(_outdated(home), ignore_errors=True)
    record.unlink()


def readable_install(install: Path, place: Path, account: Account | None) -> Path:
    """The folder with PostgreSQL's programs: the installed one, or a copy that the account can read."""
    if account is None or account.runs([str(install / "bin" / "postgres"), "--version"]):
        return install
    copy = place / "postgres-install"
    shutil.rmtree(copy, ignore_errors=True)
    package = install.parent
    target = copy / package.name / install.name
    shutil.copytree(install, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
        if libraries.is_dir():  # the programs find these by their relative path
            shutil.copytree(libraries, copy / libraries.relative_to(package.parent), symlinks=True)
    _give(copy, account)
    if not account.runs([str(target / "bin" / "postgres"), "--version"]):
        message = f"PostgreSQL cannot be run from {target} (is it mounted noexec?); set DATABASE_URL"
        raise NoPlace(message)
    return target


def _private_folder(account: Account) -> Path:
    for parent in (Path("/var/tmp"), Path(tempfile.gettempdir())):  # noqa: S108 - mkdtemp makes it private
        if parent.is_dir() and account.can("-x", parent):
            folder = Path(tempfile.mkdtemp(prefix="payment-stack-", dir=parent))
            _give(folder, account)
            return folder
    message = "no folder for PostgreSQL's data is open to another account than root; set STATE_DIR to one"
    raise NoPlace(message)


def _give(folder: Path, account: Account) -> None:
    """Make the account the owner of everything in `folder`."""
    if not folder.exists() or folder.stat().st_uid == account.uid:
        return
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(parent) / name, account.uid, account.gid, follow_symlinks=False)
    os.chown(folder, account.uid, account.gid)


def _move(source: Path, target: Path) -> None:
    """Rename, or across file systems copy; at each moment at least one of the two names is complete."""
    try:
        source.rename(target)
    except OSError:
        draft = target.with_name(f"{target.name}.partial")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(source, draft, symlinks=True)
        os.sync()  # the copy is on disk before the original goes
        draft.rename(target)
        source.rename(_outdated(source))
        shutil.rmtree(_outdated(source))


def _outdated(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.outdated")
