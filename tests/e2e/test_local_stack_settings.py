"""The embedded stack's settings, its state folder, and stacks side by side."""

import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from deploy.local.client import RunningStack, StackFailed, running_stack
from deploy.local.processes import wait_gone
from shared.events import topics
from tests.stacks import (
    NOTHING_LEFT_S,
    ROOT,
    SERVERS,
    SERVICES,
    call,
    environment,
    ledger,
    ledger_size,
    paid,
    pay,
    read,
    started,
    supervise,
    wait_ready,
    whole_stack,
)
from tests.waiting import LONGEST_S


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One stack of servers for the tests of this file that leave it up."""
    with running_stack(tmp_path_factory.mktemp("stack"), only_servers=True) as running:
        yield running


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
        pids = read(tmp_path, "pids.json")
        processes = whole_stack(supervisor)
        watchdog = next(child for child in processes if "deploy.local.watchdog" in child.cmdline())
        supervisor.suspend()  # so that it cannot replace the watchdog
        watchdog.kill()
        supervisor.kill()
        left = [process for process in processes if process not in {supervisor, watchdog}]
        assert wait_gone([supervisor, watchdog], NOTHING_LEFT_S) == []
        # Not all that was there a moment ago: PostgreSQL's own workers come and go.
        assert all(psutil.pid_exists(pids[name]["pid"]) for name in SERVERS)
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


def addresses(stack: RunningStack) -> set[str]:
    """Everything that the stack listens on."""
    known = vars(stack.endpoints)
    return {known[name] for name in known if isinstance(known[name], str)} | set(
        stack.endpoints.health_urls.values()
    )


def test_two_stacks_run_side_by_side(stack: RunningStack, tmp_path: Path) -> None:
    """Another state folder is another stack: no port and no process in common."""
    with running_stack(tmp_path, only_servers=True) as other:
        assert not addresses(other) & addresses(stack)
        with psycopg.connect(other.endpoints.database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert ledger_size(stack) >= 0


def refusal(state_dir: Path, **settings: str) -> str:
    """What the stack says when it refuses to start; fails when it does start."""
    refused = subprocess.run(
        supervise(),
        cwd=ROOT,
        env=environment(state_dir, **settings),
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
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
        ({"AUTH": "off"}, "AUTH"),
        ({"NEIGHBOURS": "yes"}, "NEIGHBOURS"),
        ({"NEIGHBOURS": "1", "ORDER_SERVICE_URL": "http://127.0.0.1:1"}, "ORDER_SERVICE_URL"),
        ({"JWT_SECRET": "a", "JWT_SECRET_FILE": "/b"}, "JWT_SECRET_FILE"),
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
        named = re.search(r"the API answers on port (\d+)", line)
        assert named is not None
        wait_ready(tmp_path)
        assert call("GET", f"http://127.0.0.1:{named[1]}/healthz")[0] == HTTPStatus.OK


def test_outside_parts_are_used_as_given(stack: RunningStack, tmp_path: Path) -> None:
    """Each part can be an outside one by its setting, or by a file.

    Nothing is started for it, and a payment goes its whole way through what was given.
    """
    url_file = tmp_path / "database_url"
    url_file.write_text(f"{stack.endpoints.database_url}\n", encoding="utf-8")
    given = {
        "DATABASE_URL_FILE": str(url_file),
        "REDIS_URL": stack.endpoints.redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": stack.endpoints.kafka_bootstrap_servers,
        "STRIPE_API_URL": str(stack.endpoints.stripe_api_url),
        "STRIPE_SECRET_KEY": "sk_test_1",
    }
    with running_stack(tmp_path / "state", env=given) as other:
        assert set(read(other.state_dir, "pids.json")) == {"supervisor", *SERVICES}
        outside = vars(stack.endpoints)
        assert {**vars(other.endpoints), "api_url": None, "health_urls": {}} == outside
        # The schema was made there, the topics too, and all our processes use what they were given.
        payment = paid(str(other.endpoints.api_url), pay(str(other.endpoints.api_url))[1]["payment"])
    with psycopg.connect(stack.endpoints.database_url) as connection:
        rows = connection.execute("SELECT id::text, status FROM payment").fetchall()
    assert rows == [(payment["id"], "succeeded")]
    assert payment["transactionId"] in {charge["id"] for charge in ledger(stack)}
    admin = AdminClient({"bootstrap.servers": stack.endpoints.kafka_bootstrap_servers})
    assert set(topics()) <= set(admin.list_topics(timeout=60).topics)


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
