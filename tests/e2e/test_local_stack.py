"""The embedded stack: what it starts answers, survives its parts' deaths, and leaves nothing behind."""

import contextlib
import json
import os
import pty
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local.client import RunningStack, StackFailed, running_stack
from deploy.local.processes import wait_gone

ROOT = Path(__file__).parents[2]
NOTHING_LEFT_S = 5.0  # after whatever death
UP_S = 60.0
SERVERS = ("postgres", "valkey", "broker", "simulator")
MAKE_RUN = ["make", "-s", "-o", ".venv/.local", "run", "ARGS=--only servers"]  # -o: install nothing


def until(condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    """Wait for a condition; fail with `otherwise` when it does not come about."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def environment(state_dir: Path, **settings: str) -> dict[str, str]:
    """Our environment without what would choose other parts, and with a state folder of the test's own."""
    ours = (
        "DATABASE_URL",
        "REDIS_URL",
        "KAFKA_",
        "STRIPE_",
        "PORT",
        "HOST",
        "STOP_WITH_PID",
        "MAKE",
        "MFLAGS",
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**inherited, "STATE_DIR": str(state_dir), **settings}


def read(state_dir: Path, name: str) -> dict[str, Any]:
    """One of the state folder's JSON files; empty while it is not there."""
    with contextlib.suppress(OSError, ValueError):
        content: dict[str, Any] = json.loads((state_dir / name).read_text(encoding="utf-8"))
        return content
    return {}


def wait_ready(state_dir: Path) -> psutil.Process:
    """Wait until the stack of a state folder is up; its supervisor."""
    until(lambda: bool(read(state_dir, "endpoints.json")), UP_S, f"no stack is up in {state_dir}")
    return psutil.Process(read(state_dir, "pids.json")["supervisor"]["pid"])


def whole_stack(supervisor: psutil.Process) -> list[psutil.Process]:
    """The supervisor and everything below it: servers, their workers, the watchdog."""
    return [supervisor, *supervisor.children(recursive=True)]


def assert_nothing_left(processes: list[psutil.Process], state_dir: Path) -> None:
    """All of them end in time, and the state folder no longer speaks of a running stack."""
    assert len(processes) > len(SERVERS) + 1  # else there was nothing to end
    assert wait_gone(processes, NOTHING_LEFT_S) == []
    assert not (state_dir / "endpoints.json").exists()
    assert not (state_dir / "pids.json").exists()


@contextlib.contextmanager
def started(argv: list[str], state_dir: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A program that starts a stack; whatever the test did to it, its stack is ended after the block."""
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=environment(state_dir, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            end_stack(state_dir)
            process.kill()


def end_stack(state_dir: Path) -> None:
    """Ask the stack of a state folder to stop, if a test that failed has left one."""
    supervisor = read(state_dir, "pids.json").get("supervisor")
    if supervisor and psutil.pid_exists(supervisor["pid"]):
        process = psutil.Process(supervisor["pid"])
        process.terminate()
        wait_gone([process], 20)


def supervise(*options: str) -> list[str]:
    """The supervisor's command line."""
    return [sys.executable, "-m", "deploy.local", *options]


def ledger_size(stack: RunningStack) -> int:
    """How many charges the stack's simulator has made."""
    url = f"{stack.endpoints.stripe_api_url}/_control/ledger"
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server
        return len(json.load(answer)["data"])


def charge(stack: RunningStack) -> None:
    """Charge once at the stack's simulator."""
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{stack.endpoints.stripe_api_url}/v1/payment_intents",
        data=b"amount=1500&currency=usd&confirm=true&payment_method=pm_card_visa&payment_method_types[]=card",
        headers={"Authorization": "Bearer sk_test_123", "Idempotency-Key": f"key-{time.monotonic_ns()}"},
    )
    urllib.request.urlopen(request, timeout=5).close()  # noqa: S310


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One stack of servers for the tests of this file that leave it up."""
    with running_stack(tmp_path_factory.mktemp("stack"), only_servers=True) as running:
        yield running


# --- what is started ---


def test_postgres_is_durable_guarded_and_on_loopback_only(stack: RunningStack) -> None:
    """A committed payment survives a crash, a wrong password is refused, and root's rights are not used."""
    with psycopg.connect(stack.endpoints.database_url) as connection:

        def setting(name: str) -> str:
            row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            assert row is not None
            return str(row[0])

        assert [setting(name) for name in ("fsync", "synchronous_commit", "full_page_writes")] == ["on"] * 3
        assert setting("listen_addresses") == "127.0.0.1"
        assert setting("unix_socket_directories") == ""
        assert int(setting("max_connections")) >= 200
        assert setting("server_version").startswith("18")
    password = psycopg.conninfo.conninfo_to_dict(stack.endpoints.database_url)["password"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(stack.endpoints.database_url.replace(str(password), "wrong"))
    assert psutil.Process(stack.pid_of("postgres")).uids().effective != 0


def test_valkey_keeps_nothing_and_listens_on_loopback_only(stack: RunningStack) -> None:
    """No dump, no append-only file and no eviction: a queue is either there or known to be lost."""
    client = redis.Redis.from_url(stack.endpoints.redis_url)
    wanted = {"bind": "127.0.0.1", "save": "", "appendonly": "no", "maxmemory-policy": "noeviction"}
    assert {name: client.config_get(name)[name] for name in wanted} == wanted
    assert client.config_get("dir")["dir"] == str(stack.state_dir / "valkey")


def test_the_broker_takes_messages_at_once(stack: RunningStack) -> None:
    """When the stack is ready, a topic can be made with its partition count and a message delivered."""
    bootstrap: dict[str, str | int | float | bool] = {
        "bootstrap.servers": stack.endpoints.kafka_bootstrap_servers
    }
    admin = AdminClient(bootstrap)
    for future in admin.create_topics([NewTopic("stack-test", 6, 1)]).values():
        future.result(10)
    assert len(admin.list_topics("stack-test", 10).topics["stack-test"].partitions) == 6
    delivered: list[object] = []
    producer = Producer({**bootstrap, "acks": "all", "enable.idempotence": True})
    producer.produce("stack-test", b"1", b"key", on_delivery=lambda error, _message: delivered.append(error))
    producer.flush(10)
    assert delivered == [None]


def test_the_simulator_charges(stack: RunningStack) -> None:
    """The simulator of the endpoints file is the one that keeps the ledger."""
    before = ledger_size(stack)
    charge(stack)
    assert ledger_size(stack) == before + 1


def test_every_server_listens_on_loopback_only(stack: RunningStack) -> None:
    """No part of the stack can be reached from another machine."""
    listening = {
        connection.laddr.ip
        for process in whole_stack(psutil.Process(stack.pid_of("supervisor")))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_files_with_a_password_are_private(stack: RunningStack) -> None:
    """Only the owner may read the files in which the database's password stands."""
    for name in ("endpoints.json", "postgres.password"):
        assert stat.S_IMODE((stack.state_dir / name).stat().st_mode) == 0o600


def test_the_records_name_every_part(stack: RunningStack) -> None:
    """pids.json names the supervisor and each part by pid and start time; servers only means no API."""
    pids = read(stack.state_dir, "pids.json")
    assert set(pids) == {"supervisor", *SERVERS}
    for entry in pids.values():
        assert psutil.Process(entry["pid"]).create_time() == pytest.approx(entry["start_time"], abs=2)
    assert read(stack.state_dir, "endpoints.json")["api_url"] is None


# --- deaths of parts ---


@pytest.mark.parametrize("name", SERVERS)
def test_a_killed_server_comes_back_on_its_own_port(stack: RunningStack, name: str) -> None:
    """A part killed with -9 is started again, answers where it did, and its end is named in the log."""
    old = stack.kill(name)
    assert stack.wait_restarted(name, old) != old
    with psycopg.connect(stack.endpoints.database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert redis.Redis.from_url(stack.endpoints.redis_url).ping()
    admin = AdminClient({"bootstrap.servers": stack.endpoints.kafka_bootstrap_servers})
    assert len(admin.list_topics(timeout=10).brokers) == 1
    assert ledger_size(stack) >= 0
    assert f"{name} ended (signal SIGKILL); starting it again" in stack.log("supervisor")


def test_committed_rows_survive_a_kill_of_postgres(stack: RunningStack) -> None:
    """What was committed before kill -9 is there after the restart, three kills in a row."""
    with psycopg.connect(stack.endpoints.database_url) as connection:
        connection.execute("CREATE TABLE survivors (number int)")
    for number in range(3):
        with psycopg.connect(stack.endpoints.database_url) as connection:
            connection.execute("INSERT INTO survivors VALUES (%s)", [number])
        stack.wait_restarted("postgres", stack.kill("postgres"))
    with psycopg.connect(stack.endpoints.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM survivors").fetchone() == (3,)


def test_a_killed_watchdog_is_replaced(stack: RunningStack) -> None:
    """The supervisor is never long without a watchdog."""
    supervisor = psutil.Process(stack.pid_of("supervisor"))

    def watchdogs() -> list[psutil.Process]:
        return [child for child in supervisor.children() if "deploy.local.watchdog" in child.cmdline()]

    (old,) = watchdogs()
    old.kill()
    until(lambda: any(dog.pid != old.pid for dog in watchdogs()), 5, "no new watchdog")


# --- ends ---


def test_payments_survive_a_stop(tmp_path: Path) -> None:
    """A second run on the same state folder has the rows and the charges of the first."""
    with running_stack(tmp_path, only_servers=True) as first:
        with psycopg.connect(first.endpoints.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        charge(first)
        processes = whole_stack(psutil.Process(first.pid_of("supervisor")))
    assert_nothing_left(processes, tmp_path)
    with running_stack(tmp_path, only_servers=True) as second:
        with psycopg.connect(second.endpoints.database_url) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
        assert ledger_size(second) == 1


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """After kill -9 of the supervisor: the watchdog ends every server, and the data stay whole."""
    with started(supervise("--only", "servers"), tmp_path):
        supervisor = wait_ready(tmp_path)
        with psycopg.connect(read(tmp_path, "endpoints.json")["database_url"]) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        processes = whole_stack(supervisor)
        supervisor.kill()
        assert_nothing_left(processes, tmp_path)
    with (
        running_stack(tmp_path, only_servers=True) as again,
        psycopg.connect(again.endpoints.database_url) as connection,
    ):
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)


def test_nothing_is_left_when_the_supervisor_is_killed_in_mid_start(tmp_path: Path) -> None:
    """After kill -9 at several moments of the start: nothing is left, and the next start works."""
    for delay_s in (0.25, 0.45, 0.65):
        with started(supervise("--only", "servers"), tmp_path) as process:
            time.sleep(delay_s)  # the moment itself is what is tried
            processes = whole_stack(psutil.Process(process.pid))
            process.kill()
            assert wait_gone(processes, NOTHING_LEFT_S) == []
    with running_stack(tmp_path, only_servers=True) as stack:
        assert ledger_size(stack) == 0


def test_nothing_is_left_when_make_is_killed(tmp_path: Path) -> None:
    """After kill -9 of make: the supervisor notices that its starter is gone, and stops."""
    with started(MAKE_RUN, tmp_path) as make:
        supervisor = wait_ready(tmp_path)
        assert supervisor.ppid() == make.pid  # the recipe became the supervisor
        processes = whole_stack(supervisor)
        make.kill()
        assert_nothing_left(processes, tmp_path)


def in_a_terminal(argv: list[str], state_dir: Path) -> tuple[int, int]:
    """Run a command as the first process of a terminal; (its pid, the terminal's other side)."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.chdir(ROOT)
            os.execvpe(argv[0], argv, environment(state_dir))  # noqa: S606 - no shell wanted
        finally:
            os._exit(127)
    return pid, terminal


def read_all(terminal: int) -> None:
    """Take what the terminal shows until it is closed from the other side."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 65_536):
            pass


@pytest.mark.parametrize(
    "argv", [MAKE_RUN, ["sh", "-c", f"{shlex.join(MAKE_RUN)}; true"]], ids=["make", "shell"]
)
def test_nothing_is_left_when_the_terminal_is_closed(tmp_path: Path, argv: list[str]) -> None:
    """Closing the window stops everything, whether make or a shell was the first program in it."""
    pid, terminal = in_a_terminal(argv, tmp_path)
    try:
        processes = whole_stack(wait_ready(tmp_path))
        os.close(terminal)
        assert_nothing_left(processes, tmp_path)
    finally:
        end_stack(tmp_path)
        os.waitpid(pid, 0)


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    """The key typed at the terminal stops make's stack completely."""
    pid, terminal = in_a_terminal(MAKE_RUN, tmp_path)
    try:
        processes = whole_stack(wait_ready(tmp_path))
        os.write(terminal, b"\x03")
        read_all(terminal)
        assert_nothing_left(processes, tmp_path)
    finally:
        end_stack(tmp_path)
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_stop_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    """A signal to the supervisor itself ends all in good order: exit status 0, PostgreSQL shut down."""
    with started(supervise("--only", "servers"), tmp_path) as process:
        processes = whole_stack(wait_ready(tmp_path))
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
        assert_nothing_left(processes, tmp_path)
    assert process.returncode == 0
    assert f"stopping: {number.name}" in output
    assert "database system is shut down" in output


def test_nothing_is_left_when_the_starter_is_killed(tmp_path: Path) -> None:
    """A test run or demo killed with -9 takes its stack along."""
    code = (
        "import sys, signal\nfrom deploy.local.client import running_stack\n"
        "with running_stack(sys.argv[1], only_servers=True): signal.pause()"
    )
    with started([sys.executable, "-c", code, str(tmp_path)], tmp_path) as starter:
        processes = whole_stack(wait_ready(tmp_path))
        starter.kill()
        assert_nothing_left(processes, tmp_path)


# --- several stacks, one state folder ---


def test_a_second_start_names_the_live_stack(stack: RunningStack) -> None:
    """The state folder of a live stack is refused, naming its pid, and the stack stays as it was."""
    before = read(stack.state_dir, "pids.json")
    refused = subprocess.run(
        supervise(), cwd=ROOT, env=environment(stack.state_dir), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert f"pid {stack.pid_of('supervisor')}" in refused.stderr
    assert "api_url" in refused.stderr
    assert read(stack.state_dir, "pids.json") == before


def test_a_start_ends_its_own_leftovers(tmp_path: Path) -> None:
    """Supervisor and watchdog both killed: the servers outlive them, and the next start ends them."""
    with started(supervise("--only", "servers"), tmp_path):
        supervisor = wait_ready(tmp_path)
        processes = whole_stack(supervisor)
        watchdog = next(child for child in processes if "deploy.local.watchdog" in child.cmdline())
        supervisor.suspend()  # so that it cannot replace the watchdog
        watchdog.kill()
        supervisor.kill()
        left = [process for process in processes if process not in {supervisor, watchdog}]
        assert wait_gone([supervisor, watchdog], 5) == []
        assert all(process.is_running() for process in left)
        with running_stack(tmp_path, only_servers=True) as stack:
            assert wait_gone(left, 0) == []
            assert "left by an earlier run" in stack.log("supervisor")


def test_a_strangers_process_is_never_ended(tmp_path: Path) -> None:
    """A pid in pids.json that belongs to a later process is left alone: its start time differs."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            entry = {"pid": stranger.pid, "start_time": time.time() - 3600, "ready": True}
            (tmp_path / "pids.json").write_text(json.dumps({"valkey": entry}), encoding="utf-8")
            with running_stack(tmp_path, only_servers=True):
                assert stranger.poll() is None
        finally:
            stranger.kill()


def test_two_stacks_run_side_by_side(stack: RunningStack, tmp_path: Path) -> None:
    """Another state folder is another stack: no port and no process in common."""
    with running_stack(tmp_path, only_servers=True) as other:
        assert not set(vars(other.endpoints).values()) & set(vars(stack.endpoints).values()) - {None}
        with psycopg.connect(other.endpoints.database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert ledger_size(stack) >= 0


# --- settings ---


def refusal(state_dir: Path, **settings: str) -> str:
    """What the stack says when it refuses to start; fails when it does start."""
    refused = subprocess.run(
        supervise(),
        cwd=ROOT,
        env=environment(state_dir, **settings),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert list(state_dir.glob("postgres")) == []  # refused before anything was made
    return refused.stderr


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"PORT": "many"}, "PORT"),
        ({"PORT": "65536"}, "PORT"),
        ({"STRIPE_API_URL": "http://127.0.0.1:1"}, "STRIPE_SECRET_KEY"),
        ({"STRIPE_SECRET_KEY": "sk_live_1"}, "STRIPE_SECRET_KEY"),
        ({"KAFKA_CONFIG": "{"}, "KAFKA_CONFIG"),
        ({"KAFKA_CONFIG": '{"security.protocol": "SSL"}'}, "KAFKA_BOOTSTRAP_SERVERS"),
        ({"DATABASE_URL_FILE": "/does/not/exist"}, "DATABASE_URL_FILE"),
        ({"REDIS_URL": "redis://a", "REDIS_URL_FILE": "/b"}, "REDIS_URL_FILE"),
    ],
)
def test_a_bad_setting_is_refused_by_name(tmp_path: Path, settings: dict[str, str], named: str) -> None:
    """The message names the variable; nothing is started; a secret's value is not shown."""
    said = refusal(tmp_path, **settings)
    assert named in said
    assert "sk_live_1" not in said


def test_a_given_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    """PORT given: that port or none."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        said = refusal(tmp_path, PORT=str(port))
    assert "PORT" in said
    assert str(port) in said


def test_the_default_port_taken_means_a_free_one_said_aloud(tmp_path: Path) -> None:
    """PORT not given and 5004 taken: another port, and the reader is told which."""
    with contextlib.ExitStack() as cleanup:
        with contextlib.suppress(OSError):  # taken already by somebody else: as good
            cleanup.enter_context(socket.create_server(("127.0.0.1", 5004)))
        process = cleanup.enter_context(started(supervise(), tmp_path))
        assert process.stdout is not None
        line = next((line for line in process.stdout if "port 5004 is taken" in line), "")
        assert "the API answers on port" in line


def test_outside_parts_are_used_as_given(stack: RunningStack, tmp_path: Path) -> None:
    """Each part can be an outside one by its setting, or by a file: then nothing is started for it."""
    url_file = tmp_path / "database_url"
    url_file.write_text(f"{stack.endpoints.database_url}\n", encoding="utf-8")
    given = {
        "DATABASE_URL_FILE": str(url_file),
        "REDIS_URL": stack.endpoints.redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": stack.endpoints.kafka_bootstrap_servers,
        "STRIPE_API_URL": str(stack.endpoints.stripe_api_url),
        "STRIPE_SECRET_KEY": "sk_test_1",
    }
    with running_stack(tmp_path / "state", only_servers=True, env=given) as other:
        assert other.endpoints == stack.endpoints
        assert set(read(other.state_dir, "pids.json")) == {"supervisor"}


def test_a_test_key_alone_means_stripe_itself(tmp_path: Path) -> None:
    """With a test key and no URL no simulator is started: charges go to Stripe."""
    with running_stack(tmp_path, only_servers=True, env={"STRIPE_SECRET_KEY": "sk_test_1"}) as stack:
        assert stack.endpoints.stripe_api_url is None
        assert "simulator" not in read(tmp_path, "pids.json")


def test_a_stack_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A start that fails ends by itself, shows the part's own words and leaves nothing running."""
    with running_stack(tmp_path, only_servers=True):
        pass
    data = tmp_path / "postgres"
    (data / "PG_VERSION").write_text("9\n", encoding="utf-8")
    with pytest.raises(StackFailed, match="not compatible") as failure, running_stack(tmp_path):
        pass
    assert "postgres" in str(failure.value)
    assert not (tmp_path / "pids.json").exists()
