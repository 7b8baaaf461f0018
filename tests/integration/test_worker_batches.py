"""One task carries many operations: each runs by itself, and none is lost with the others or the worker."""

import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from payment_worker.courier import make_courier
from payment_worker.inflight import InFlight
from payment_worker.queues import OPERATIONS_PER_TASK, PROCESS, PROCESS_BATCH, Errand, dispatch, make_celery
from payment_worker.tasks import register
from shared.payments import OperationState, Status
from tests.waiting import LONGEST_S, wait_until
from tests.worker import Bench

SOON_S = 30.0
THREADS = 4
LONG_MS = (1500, 1600)


@pytest.fixture
def app(bench: Bench) -> Iterator[Celery]:
    """The tasks, bound to the bench's worker; calling one does what Celery would."""
    app = make_celery(bench.settings)
    in_flight = InFlight(THREADS)
    courier = make_courier(bench.sessions, bench.settings)
    register(app, bench.worker, bench.settings, in_flight, courier)
    yield app
    in_flight.finish()
    courier.finish()
    app.close()


def errands(operations: list[uuid.UUID]) -> list[Errand]:
    """The first attempt of each operation, as a consumer sends it."""
    return [(str(each), 0, None) for each in operations]


def wait_succeeded(bench: Bench, operations: list[uuid.UUID]) -> None:
    """Wait until each of them has taken its money; once, as the gateway says."""

    def all_succeeded() -> bool:
        return {bench.payment(each).status for each in operations} == {Status.SUCCEEDED}

    wait_until(all_succeeded, SOON_S, "the charges")
    assert [len(bench.successes(each)) for each in operations] == [1] * len(operations)


def test_one_that_fails_harms_no_other(bench: Bench, app: Celery) -> None:
    """An operation that nobody knows, one that is no id and one whose call breaks: the others are charged."""
    good = [bench.order() for _ in range(2 * THREADS)]
    broken = bench.order()
    bench.simulator.fault("connection_reset", operation_id=str(broken))
    batch = [*errands([uuid.uuid4()]), ("no id", 0, None), *errands([broken, *good])]
    app.tasks[PROCESS_BATCH](batch)
    wait_succeeded(bench, good)
    wait_until(lambda: bench.operation(broken).lease_until is None, SOON_S, "the broken call's end")
    assert bench.operation(broken).finished_at is None
    bench.make_due(broken)
    assert bench.recover() == [broken]
    wait_succeeded(bench, [broken])


def test_what_comes_twice_is_done_once(bench: Bench, app: Celery) -> None:
    """Within a batch, in another batch, and as the release before sent it: one charge."""
    operations = [bench.order() for _ in range(THREADS)]
    app.tasks[PROCESS_BATCH](errands(operations * 2))
    app.tasks[PROCESS_BATCH](errands(operations))
    for each in operations:
        app.tasks[PROCESS](str(each), 0, None)
    wait_succeeded(bench, operations)
    assert sorted(bench.gateway.keys) == sorted(map(str, operations))


def test_no_more_run_than_may(bench: Bench, app: Celery) -> None:
    """A task waits for free threads before it hands out more, and so holds up its queue."""
    at_once, most, lock = [0], [0], threading.Lock()
    all_busy, go_on = threading.Event(), threading.Event()

    def enter() -> None:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
            if at_once[0] == THREADS:
                all_busy.set()
        assert go_on.wait(LONGEST_S)

    def leave() -> None:
        with lock:
            at_once[0] -= 1

    operations = [bench.order() for _ in range(3 * THREADS)]
    bench.gateway.before = [enter] * len(operations)
    bench.gateway.after = [leave] * len(operations)
    task = threading.Thread(target=app.tasks[PROCESS_BATCH], args=(errands(operations),))
    task.start()
    assert all_busy.wait(LONGEST_S)
    assert task.is_alive()
    go_on.set()
    task.join(LONGEST_S)
    wait_succeeded(bench, operations)
    assert most[0] == THREADS


def test_a_stop_in_the_middle_of_a_batch_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    """What runs is finished before the process ends; what has not begun stays due, and is charged once."""
    operations = [bench.order() for _ in range(OPERATIONS_PER_TASK)]
    bench.simulator.latency(*LONG_MS)
    dispatch(make_celery(bench.settings), errands(operations))
    monkeypatch.setenv("TASK_THREADS", str(THREADS))
    argv = [str(Path(sys.executable).with_name("payment-worker")), "tasks"]
    with subprocess.Popen(argv, cwd=repository, stdout=subprocess.DEVNULL) as process:
        try:

            def running() -> bool:
                return sum(bench.operation(each).attempt for each in operations) >= THREADS

            wait_until(running, SOON_S, "the first charges")
            process.send_signal(signal.SIGTERM)
            assert process.wait(LONGEST_S) == 0
        finally:
            process.kill()
    states = [bench.operation(each).state for each in operations]
    assert set(states) == {OperationState.SUCCEEDED, OperationState.REQUESTED}
    left = [each for each, state in zip(operations, states, strict=True) if state != OperationState.SUCCEEDED]
    assert [bench.operation(each).attempt for each in left] == [0] * len(left)
    bench.simulator.latency(None, None)
    for each in left:
        bench.make_due(each)
    assert sorted(bench.recover()) == sorted(left)
    wait_succeeded(bench, operations)
