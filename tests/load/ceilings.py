"""This machine's ceilings, measured in the same run: bare inserts, and Celery tasks that do nothing."""

import subprocess
import sys
import threading
import time
import uuid

import psycopg
import redis
from celery import Celery

WRITERS = 8
MEASURE_S = 3.0
NOOPS = 3_000
NOOP_QUEUE = "benchmark-noops"
NOOP_COUNTER = "benchmark-noops-done"
NOOP_TIMEOUT_S = 60.0

_TABLES = """
    CREATE TABLE IF NOT EXISTS benchmark_first (id uuid PRIMARY KEY, amount bigint, note text);
    CREATE TABLE IF NOT EXISTS benchmark_second (id uuid PRIMARY KEY, first uuid, payload jsonb);
"""


def db_inserts_per_s(database_url: str) -> float:
    """Transactions a second that insert two rows and nothing else, from eight threads."""
    with psycopg.connect(database_url) as connection:
        connection.execute(_TABLES)
    done = [0] * WRITERS
    until = time.monotonic() + MEASURE_S

    def write(number: int) -> None:
        with psycopg.connect(database_url) as connection:
            while time.monotonic() < until:
                first = uuid.uuid4()
                with connection.transaction():
                    connection.execute("INSERT INTO benchmark_first VALUES (%s, 15000, 'x')", (first,))
                    connection.execute(
                        "INSERT INTO benchmark_second VALUES (%s, %s, '{}')", (uuid.uuid4(), first)
                    )
                done[number] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP TABLE benchmark_first, benchmark_second")
    return sum(done) / MEASURE_S


def celery_noops_per_s(redis_url: str) -> float:
    """Tasks a second that a Celery worker with a pool of threads works off when they do nothing."""
    client = redis.Redis.from_url(redis_url)
    client.delete(NOOP_COUNTER, NOOP_QUEUE)
    app = make_noop_app(redis_url)
    with app.producer_pool.acquire() as producer:
        for _ in range(NOOPS):
            app.send_task("noop", queue=NOOP_QUEUE, producer=producer, retry=False)
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.load.ceilings", redis_url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(client, 1)
        began, first = time.monotonic(), int(client.get(NOOP_COUNTER) or 0)
        _wait_for(client, NOOPS)
        return (NOOPS - first) / (time.monotonic() - began)
    finally:
        worker.terminate()
        worker.wait()


def _wait_for(client: redis.Redis, count: int) -> None:
    until = time.monotonic() + NOOP_TIMEOUT_S
    while int(client.get(NOOP_COUNTER) or 0) < count:
        if time.monotonic() > until:
            raise TimeoutError("the no-op tasks were not worked off")
        time.sleep(0.005)


def make_noop_app(redis_url: str) -> Celery:
    """A Celery application whose one task only counts itself."""
    app = Celery("noops", broker=redis_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        task_default_queue=NOOP_QUEUE,
    )
    client = redis.Redis.from_url(redis_url)

    @app.task(name="noop")  # type: ignore[untyped-decorator]
    def noop() -> None:
        client.incr(NOOP_COUNTER)

    return app


if __name__ == "__main__":
    make_noop_app(sys.argv[1]).Worker(
        pool="threads", concurrency=64, without_gossip=True, without_mingle=True, quiet=True, loglevel="ERROR"
    ).start()
