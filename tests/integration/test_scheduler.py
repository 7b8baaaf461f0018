"""The scheduler while Redis is away, and told to stop: it leaves out no turn, and ends in an orderly way."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from deploy.local.parts import program
from payment_worker.beat import RETRY_LAST_S, PatientScheduler
from payment_worker.queues import NOTIFICATIONS_QUEUE, RECOVERY_QUEUE, make_celery
from shared.settings import Settings
from tests.waiting import LONGEST_S, wait_until

NO_REDIS = "redis://127.0.0.1:9/0"
SOON_S = 30.0
TRIES = 3
A_DAY_S = 86_400.0
HOURLY = {"task": "hourly", "schedule": timedelta(hours=1), "options": {"queue": RECOVERY_QUEUE}}


@contextmanager
def hourly(settings: Settings) -> Iterator[PatientScheduler]:
    """A scheduler of one task, which was last sent two hours ago."""
    app = make_celery(settings)
    app.conf.beat_schedule = {"hourly": {**HOURLY, "last_run_at": datetime.now(UTC) - timedelta(hours=2)}}
    scheduler = PatientScheduler(app)
    try:
        yield scheduler
    finally:
        scheduler.close()
        app.close()


def test_a_scheduler_without_redis_tries_ever_more_seldom(settings: Settings) -> None:
    """One warning a try, with the reason and no trace, and longer and longer pauses up to a limit."""
    with hourly(replace(settings, redis_url=NO_REDIS)) as scheduler, capture_logs() as lines:

        def warned() -> list[Any]:
            wait_s = scheduler.tick()
            assert wait_s <= RETRY_LAST_S
            return lines if len(lines) == TRIES else []

        wait_until(warned, SOON_S, "some tries")
    pauses = [line["retry_s"] for line in lines]
    assert pauses == sorted(set(pauses))
    for line in lines:
        assert (line["event"], line["log_level"]) == ("Redis is away; periodic tasks wait", "warning")
        assert "refused" in line["reason"]
        assert "exc_info" not in line


def test_a_scheduler_that_pauses_sends_nothing(settings: Settings) -> None:
    """Between two tries it only says for how long it waits."""
    with hourly(replace(settings, redis_url=NO_REDIS)) as scheduler, capture_logs() as lines:
        scheduler._retry_s = A_DAY_S
        wait_until(lambda: (scheduler.tick(), lines)[1], SOON_S, "a try that fails")
        assert 0 < scheduler.tick() <= A_DAY_S
        assert len(lines) == 1


def test_a_task_that_could_not_be_sent_stays_due(settings: Settings) -> None:
    """When Redis is back it is sent, not an hour later; and once."""
    with hourly(replace(settings, redis_url=NO_REDIS)) as scheduler, capture_logs() as lines:
        wait_until(lambda: (scheduler.tick(), lines)[1], SOON_S, "a try that fails")
        scheduler.close()  # it connects again
        scheduler.app.conf.broker_url = settings.redis_url
        with redis.Redis.from_url(settings.redis_url) as client:

            def sent() -> int:
                scheduler.tick()
                return int(client.llen(RECOVERY_QUEUE))

            assert wait_until(sent, SOON_S, "the task") == 1
            assert sent() == 1
    assert lines[-1]["event"] == "Redis is back; periodic tasks are sent"


def test_a_fault_of_ours_is_no_outage(settings: Settings) -> None:
    """What cannot be sent for another reason is told with its trace, and holds up no other task."""
    with hourly(settings) as scheduler, capture_logs() as lines:
        scheduler.schedule["hourly"].args = (object(),)  # no JSON
        wait_until(lambda: (scheduler.tick(), lines)[1], SOON_S, "the try")
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("a periodic task was not sent", "error")
    ]
    assert lines[0]["exc_info"] is True


def test_a_stop_in_the_middle_of_a_send_is_heard(environment: dict[str, str], repository: Path) -> None:
    """The send is brought to its end, and so is the process; nothing is told as an error."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.scheduler_process"],
        env={**os.environ, **environment},
        cwd=repository,
        stdout=subprocess.PIPE,
        timeout=LONGEST_S,
        text=True,
        check=False,
    )
    assert told.returncode == 0
    assert "error" not in told.stdout
    with redis.Redis.from_url(environment["REDIS_URL"]) as client:
        assert client.llen(RECOVERY_QUEUE) + client.llen(NOTIFICATIONS_QUEUE) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_redis_is_away_is_heard(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    """Away since the start: the process ends when it is told to, without an error."""
    said = tmp_path / "said"
    variables = {**os.environ, **environment, "REDIS_URL": NO_REDIS}
    command = [program("payment-worker"), "scheduler"]
    with said.open("w") as file, subprocess.Popen(command, env=variables, stdout=file) as process:
        try:
            wait_until(lambda: said.read_text().count("Redis is away") > 1, SOON_S, "some tries")
            process.send_signal(number)
            assert process.wait(LONGEST_S) == 0
        finally:
            process.kill()
    assert '"level": "error"' not in said.read_text()
