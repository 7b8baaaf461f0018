"""Run the demo: `python -m deploy.local.demo`."""

import os
import secrets
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import requests
from rich.console import Console
from rich.markup import escape

from deploy.local.client import RunningStack, StackFailed, running_stack
from deploy.local.demo import report
from deploy.local.demo.evidence import Database, Heard
from deploy.local.demo.orders import Kind
from deploy.local.demo.report import Evidence
from deploy.local.demo.scenes import SCENES
from deploy.local.demo.screen import Screen, make_console
from deploy.local.demo.stage import NotInTime, Stage
from deploy.local.demo.stripe_control import StripeControl
from deploy.local.ordering import Outcomes, Payments
from deploy.local.state import SUPERVISOR, StackIsLive, StateFolder
from deploy.local.wipe import wipe

# A charge that Stripe answered with a 500 counts as never made after two looks this far apart. Ten minutes
# outside a demo.
SETTINGS = {"VERIFY_ABSENCE_S": "2", "STRIPE_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(16)}"}
INTRODUCTION = """\
[bold]The main job, end to end[/]: HTTP, PostgreSQL, Kafka, Celery, Stripe's SDK, PostgreSQL, Kafka.
Each part is the real server; Stripe is a simulator. Then things go wrong, on purpose.
"""
SETTLE_TIMEOUT_S = 45.0
LEAVE_TIMEOUT_S = 5.0
INTERRUPTED = 128 + signal.SIGINT
FAILURES = (NotInTime, StackFailed, requests.RequestException)


def main() -> int:
    """Exit status: 0 everything is accounted for, 1 not, 2 another demo runs here, 130 interrupted."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    if sys.stdout.isatty():
        threading.Thread(target=_watch_terminal, args=(sys.stdout.fileno(),), daemon=True).start()
    return run(make_console(), StateFolder(Path(os.environ.get("STATE_DIR") or ".local") / "demo"), perform)


def run(
    console: Console,
    state: StateFolder,
    perform: Callable[[Console, StateFolder, float], tuple[Evidence, bool]],
) -> int:
    """Perform in an emptied folder, and show what was seen; the exit status is that of `main`."""
    try:
        began = time.monotonic()
        wipe(state)
        evidence, is_complete = perform(console, state, began)
        return 0 if report.show(console, evidence, time.monotonic() - began) and is_complete else 1
    except StackIsLive as refusal:
        console.print(f"The demo does not start: {escape(str(refusal))}")
        return 2
    except (StackFailed, psycopg.OperationalError, requests.RequestException) as failure:
        console.print(f"[red]{escape(str(failure))}[/]")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was started has been stopped.")
        return INTERRUPTED


def perform(console: Console, state: StateFolder, began: float) -> tuple[Evidence, bool]:
    """Play all scenes on a stack of their own; what was seen, and whether the play came to its end."""
    heard = Heard()
    with _stack(console, state) as stack, closing(Database(stack.endpoints.database_url)) as database:
        api_url, stripe_url = stack.endpoints.api_url or "", stack.endpoints.stripe_api_url or ""
        stripe = StripeControl(stripe_url)
        with Screen(console, began) as screen, _listening(stack, heard, screen):
            screen.say(f"the stack is up, every part a process of its own; logs in {_short(state.logs)}")
            stage = Stage(
                stack=stack,
                payments=Payments(api_url),
                stripe=stripe,
                database=database,
                heard=heard,
                screen=screen,
                webhook_secret=SETTINGS["STRIPE_WEBHOOK_SECRET"],
            )
            kinds, is_complete = play(stage)
        payments = database.payments()
        ids = list(dict.fromkeys(row.payment_id for row in payments))
        evidence = Evidence(
            kinds=kinds,
            charges=stripe.charges(),
            refunds=stripe.refunds(),
            payments=payments,
            events=heard.rows(),
            messages=heard.messages(),
            timelines=report.fetch_timelines(api_url, ids),
            durations_s=database.durations_s(),
        )
    return evidence, is_complete


def play(stage: Stage) -> tuple[list[Kind], bool]:
    """Play scene after scene and wait for the last outcome; False when something has not come about."""
    kinds = []
    try:
        # Without webhooks first: what recovery does by itself is to be seen.
        stage.stripe.webhooks(None)
        for make_orders, act in SCENES:
            kinds.append(make_orders())
            stage.screen.begin(kinds[-1])
            act(stage, kinds[-1])
        stage.until(stage.is_settled, "every order has its outcome", SETTLE_TIMEOUT_S)
    except FAILURES as failure:
        stage.screen.say(str(failure), style="red")
        return kinds, False
    stage.screen.say("every order has its outcome, and every outcome was heard")
    return kinds, True


def _watch_terminal(descriptor: int) -> None:
    """Notice a closed terminal also where its signal stops at make, which waits for us."""
    poll = select.poll()
    poll.register(descriptor, 0)
    if poll.poll()[0][1] & select.POLLHUP:
        os.kill(os.getpid(), signal.SIGHUP)


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


@contextmanager
def _stack(console: Console, state: StateFolder) -> Iterator[RunningStack]:
    """The stack for the length of the block, with a word about its start and its end."""
    console.print(INTRODUCTION)
    words = "starting PostgreSQL, Valkey, a Kafka broker, a Stripe simulator and the service"
    with console.status(words) as status, running_stack(state.path, env=SETTINGS) as stack:
        status.stop()
        try:
            yield stack
        except BaseException:
            # Interrupted or broken off: nobody waits for the answers that are still held back.
            os.kill(stack.pid_of(SUPERVISOR), signal.SIGHUP)
            raise
        status.update("stopping the stack")
        status.start()


@contextmanager
def _listening(stack: RunningStack, heard: Heard, screen: Screen) -> Iterator[None]:
    """The ordering domain listens for outcomes within the block."""
    stop = threading.Event()
    outcomes = Outcomes(stack.endpoints.kafka_bootstrap_servers)

    def listen() -> None:
        for outcome, verdict in outcomes.listen(stop.is_set):
            heard.note(outcome, verdict)
            screen.heard(outcome, verdict)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        stop.set()
    listener.join(LEAVE_TIMEOUT_S)  # in good order only: leaving the group may take seconds


if __name__ == "__main__":
    sys.exit(main())
