"""The request budget in a real Redis: shared by all, those with priority first, and safe without Redis."""

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
import redis
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from payment_worker.budget import (
    BUCKET,
    EXPECTED_PROCESSES,
    MAX_WAIT_S,
    REDIS_AGAIN_S,
    SCRIPT,
    Budget,
    Priority,
)
from shared.gateways import Succeeded, Waiting
from shared.settings import Settings
from shared.wakeup import connect_redis
from tests.clock import Clock
from tests.conftest import Servers
from tests.outages import held_down
from tests.waiting import LONGEST_S
from tests.worker import make_bench

RATE = 40.0
# Says that it is ready, waits for the word, then takes what it can get at once.
TAKER = """
import sys
from payment_worker.budget import Budget, Priority
from shared.wakeup import connect_redis
budget = Budget(connect_redis(sys.argv[1]), float(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
print(sum(budget.take(Priority.CAPTURE, 0) for _ in range(400)))
"""


def redis_time_s(client: redis.Redis) -> float:
    """Read the clock that the bucket goes by."""
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6


def set_bucket(client: redis.Redis, tokens: float) -> None:
    """Leave this many tokens in the bucket; until somebody looks no more come, however long that takes."""
    client.hset(BUCKET, mapping={"tokens": tokens, "at": redis_time_s(client) + 3600})


def waits(priority: Priority) -> float:
    """How many calls of this priority have waited for a token."""
    return REGISTRY.get_sample_value("payment_gateway_budget_waits_total", {"priority": priority}) or 0.0


def test_processes_share_one_bucket(redis_url: str) -> None:
    """Together they get what one bucket gives in that time, by Redis's own clock, and not each as much."""
    client = connect_redis(redis_url)
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, redis_url, str(RATE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for taker in takers:
        assert taker.stdout
        assert taker.stdout.readline() == "ready\n"
    began_s = redis_time_s(client)
    for taker in takers:
        assert taker.stdin
        taker.stdin.write("go\n")
        taker.stdin.flush()
    taken = sum(int(taker.communicate(timeout=LONGEST_S)[0]) for taker in takers)
    took_s = redis_time_s(client) - began_s
    assert RATE <= taken <= RATE + RATE * took_s


def test_a_capture_finds_a_token_when_nobody_else_does(redis_url: str) -> None:
    """Polls use up their part, then charges theirs; what is reserved is still there for the next."""
    budget = Budget(connect_redis(redis_url), RATE)
    for before, after in ((Priority.POLL, Priority.CHARGE), (Priority.CHARGE, Priority.CAPTURE)):
        while budget.take(before, 0):
            pass
        assert budget.take(after, 0)


def test_a_bucket_forgets_nothing_while_it_fills(redis_url: str) -> None:
    """Should Redis drop the key early it would be full at once: the slowest bucket is kept long enough."""
    client = connect_redis(redis_url)
    slow = 0.01
    assert Budget(client, slow).take(Priority.CAPTURE, 0)
    kept_s = client.ttl(BUCKET)
    assert isinstance(kept_s, int)
    assert kept_s > 1 / slow


def test_a_bucket_whose_clock_steps_back_goes_on(redis_url: str) -> None:
    """After a step of an hour it neither is full at once nor stays empty for an hour."""
    client = connect_redis(redis_url)
    client.hset(BUCKET, mapping={"tokens": 0.0, "at": redis_time_s(client) + 3600})
    budget = Budget(client, RATE)
    assert not budget.take(Priority.POLL, 0)
    assert budget.take(Priority.POLL)


def test_without_redis_a_process_keeps_to_its_share(servers: Servers, redis_url: str) -> None:
    """A quarter of the rate, said once; when Redis is back the bucket is shared again."""
    clock = Clock()
    client = connect_redis(redis_url)
    budget = Budget(client, RATE, clock=clock, sleep=clock.move)
    assert budget.take(Priority.CHARGE)
    client.delete(BUCKET)
    with capture_logs() as lines:
        with held_down(servers.stack, "valkey"):
            began_s, taken = clock(), 0
            while clock() < began_s + 3 * REDIS_AGAIN_S:
                taken += budget.take(Priority.CAPTURE)
            share = RATE / EXPECTED_PROCESSES * (clock() - began_s)
            assert taken == pytest.approx(share, abs=1)
        clock.move(REDIS_AGAIN_S)
        assert budget.take(Priority.CHARGE)
    assert client.exists(BUCKET)
    assert [line["log_level"] for line in lines] == ["warning", "info"]


def test_who_gets_no_token_stays_due_and_unclaimed(settings: Settings) -> None:
    """The attempt is not counted and nothing is sent; at its next turn the operation is charged."""
    with make_bench(replace(settings, stripe_max_rps=0.01)) as bench:
        first, second = bench.order(), bench.order()
        assert isinstance(bench.attempt(first), Succeeded)
        before = bench.operation(second)
        with bench.pausing(second, 0, MAX_WAIT_S + 10):
            assert bench.attempt(second) is None
        after = bench.operation(second)
        assert (after.attempt, after.state, after.lease_until) == (0, before.state, None)
        assert bench.gateway.keys == [str(first)]
        set_bucket(connect_redis(settings.redis_url), 1)
        bench.make_due(second)
        assert bench.recover() == [second]
        assert len(bench.successes(second)) == 1


def test_a_message_that_comes_late_costs_no_token(settings: Settings) -> None:
    """What is finished is not paid for again."""
    client = connect_redis(settings.redis_url)
    with make_bench(replace(settings, stripe_max_rps=0.01)) as bench:
        done = bench.order()
        bench.attempt(done)
        set_bucket(client, 1)
        for attempt in (0, 1):
            assert bench.worker.process(done, attempt) is None
        assert isinstance(bench.attempt(bench.order()), Succeeded)


def test_a_look_up_lets_charges_go_first(settings: Settings) -> None:
    """With less than half of the tokens left a charge goes through at once, and a poll waits for more."""
    client = connect_redis(settings.redis_url)
    with make_bench(replace(settings, stripe_max_rps=10.0)) as bench:
        waiting = bench.order(payment_method_id="pm_card_authenticationRequired")
        assert isinstance(bench.attempt(waiting), Waiting)
        charge = bench.order()
        counts = waits(Priority.CHARGE), waits(Priority.POLL)
        set_bucket(client, 4)
        assert isinstance(bench.attempt(charge), Succeeded)
        set_bucket(client, 4)
        bench.change(waiting, next_attempt_at=timedelta())
        assert isinstance(bench.attempt(waiting), Waiting)
        assert (waits(Priority.CHARGE), waits(Priority.POLL)) == (counts[0], counts[1] + 1)


def test_the_gateway_sees_no_more_than_the_budget_allows(settings: Settings) -> None:
    """Twelve charges at five a second: each one goes when the bucket has a token for it, and not before."""
    rate, orders = 5.0, 12
    client = connect_redis(settings.redis_url)
    with make_bench(replace(settings, stripe_max_rps=rate)) as bench:
        began_s = redis_time_s(client)
        sent_at_s: list[float] = []
        bench.gateway.before = [lambda: sent_at_s.append(redis_time_s(client))] * orders
        operations = [bench.order() for _ in range(orders)]
        for each in operations:
            assert isinstance(bench.attempt(each), Succeeded)
        assert len(bench.gateway.keys) == orders
        for count, at_s in enumerate(sent_at_s, 1):
            assert count <= rate + rate * (at_s - began_s)
        assert [len(bench.simulator.charges(operation_id=str(each))) for each in operations] == [1] * orders


def test_without_a_limit_an_attempt_asks_redis_for_nothing(settings: Settings) -> None:
    """Redis has counted as many scripts after the charge as before; with a limit it counts one more."""
    client = connect_redis(settings.redis_url)

    def scripts_run() -> int:
        counted = client.info("commandstats").get("cmdstat_evalsha", {})
        return int(counted.get("calls", 0))

    for limit, asked in ((None, 0), (0.0, 0), (1000.0, 1)):
        with make_bench(replace(settings, stripe_max_rps=limit)) as bench:
            client.script_load(SCRIPT)
            before = scripts_run()
            assert isinstance(bench.attempt(bench.order()), Succeeded)
            assert scripts_run() - before == asked
