"""The embedded stack: what it starts answers, is durable and private, and comes back when it dies."""

import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import psutil
import psycopg
import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local.client import RunningStack, running_stack
from deploy.local.postgres import FSYNC, installed
from tests.stacks import NOTHING_LEFT_S, SERVERS, charge, ledger_size, read, until, whole_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One stack of servers for the tests of this file that leave it up."""
    with running_stack(tmp_path_factory.mktemp("stack"), only_servers=True, env={FSYNC: "on"}) as running:
        yield running


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


def test_the_database_url_is_one_that_psql_opens(stack: RunningStack) -> None:
    """It is libpq's own form, without a driver's name in it."""
    psql = shutil.which("psql") or installed() / "bin" / "psql"
    said = subprocess.run(
        [psql, "-XAtc", "SELECT current_database()", stack.endpoints.database_url],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "payments\n"


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
        future.result(60)
    assert len(admin.list_topics("stack-test", 60).topics["stack-test"].partitions) == 6
    delivered: list[object] = []
    producer = Producer({**bootstrap, "acks": "all", "enable.idempotence": True})
    producer.produce("stack-test", b"1", b"key", on_delivery=lambda error, _message: delivered.append(error))
    producer.flush(60)
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


@pytest.mark.parametrize("name", SERVERS)
def test_a_killed_server_comes_back_on_its_own_port(stack: RunningStack, name: str) -> None:
    """A part killed with -9 is started again, answers where it did, and its end is named in the log."""
    old = stack.kill(name)
    assert stack.wait_restarted(name, old) != old
    with psycopg.connect(stack.endpoints.database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert redis.Redis.from_url(stack.endpoints.redis_url).ping()
    admin = AdminClient({"bootstrap.servers": stack.endpoints.kafka_bootstrap_servers})
    assert len(admin.list_topics(timeout=60).brokers) == 1
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
        found = []
        for child in supervisor.children():
            with suppress(psutil.Error):  # it ends while we look
                if "deploy.local.watchdog" in child.cmdline():
                    found.append(child)
        return found

    (old,) = watchdogs()
    old.kill()
    until(lambda: any(dog.pid != old.pid for dog in watchdogs()), NOTHING_LEFT_S, "no new watchdog")
