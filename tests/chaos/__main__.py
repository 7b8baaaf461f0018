"""Kill parts of a whole stack under load, then account for every order: `make chaos`."""

import json
import os
import secrets
import signal
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import click
import psutil
import psycopg
import requests
from rich.console import Console
from rich.markup import escape

from deploy.local.client import StackFailed, running_stack
from deploy.local.state import SUPERVISOR, StackIsLive, StateFolder
from deploy.local.wipe import wipe
from tests.chaos.accounts import settle
from tests.chaos.receiver import Receiver
from tests.chaos.report import COUNTED, show
from tests.chaos.run import NotAtRest, Run
from tests.chaos.schedule import draw
from tests.chaos.screen import Screen, make_console

KILLS = 30
RATE_PER_S = 8.0
BROKERS = {"embedded": ("embedded",), "apache": ("apache",), "both": ("embedded", "apache")}
# Two looks this far apart find out that Stripe has not made a charge; ten minutes by default.
DEFAULTS = {"VERIFY_ABSENCE_S": "5", "LOG_LEVEL": "warning", "RESERVATIONS": "on"}
BROKEN_OFF = (AssertionError, StackFailed, psutil.Error, psycopg.OperationalError, requests.RequestException)
INTERRUPTED = 128 + signal.SIGINT


@click.command()
@click.option("--kills", envvar="KILLS", default=KILLS, type=click.IntRange(1), help="how many, of all runs")
@click.option("--seed", envvar="SEED", type=int, help="repeats the schedule and the orders of a run")
@click.option("--rate", envvar="RATE", default=RATE_PER_S, type=click.FloatRange(0.1), help="orders a second")
@click.option(
    "--broker",
    envvar="BROKER",
    default="embedded",
    type=click.Choice(list(BROKERS)),
    help="embedded loses its data when it is killed, apache keeps them; both: half of the kills on each",
)
def main(kills: int, seed: int | None, rate: float, broker: str) -> None:
    """Kill, wait for recovery, kill again; exit status 0 only when everything is accounted for."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    console = make_console()
    seed = secrets.randbelow(10**6) if seed is None else seed
    console.print(
        f"[bold]{kills} kills[/], broker {broker}, SEED={seed}: with it the same schedule comes again"
    )
    if (
        "apache" in BROKERS[broker]
        and subprocess.run([sys.executable, "-m", "deploy.kafka"], check=False).returncode
    ):
        sys.exit(1)
    target = Path(os.environ.get("STATE_DIR") or ".local")
    runs: dict[str, dict[str, Any]] = {}
    try:
        for number, each in enumerate(BROKERS[broker]):
            share = len(range(number, kills, len(BROKERS[broker])))
            runs[each] = _run(console, target / "chaos" / each, each, share, f"{seed} {each}", rate)
    except StackIsLive as refusal:
        console.print(f"Chaos does not start: {escape(str(refusal))}")
        sys.exit(2)
    except BROKEN_OFF as failure:
        console.print(f"[red]Broken off: {escape(str(failure))}[/]")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was started has been stopped.")
        sys.exit(INTERRUPTED)
    totals = {name: sum(run[name] for run in runs.values()) for name in COUNTED}
    report = {"seed": seed, "kills": kills, "rate_per_s": rate, **totals, "runs": runs}
    (target / "chaos.json").write_text(json.dumps(report, indent=2) + "\n")
    show(console, runs)
    console.print(f"SEED={seed}; written: {target / 'chaos.json'}")
    sys.exit(any(run["unaccounted"] or run["open"] or run["failure"] for run in runs.values()))


def _run(
    console: Console, folder: Path, broker: str, kills: int, seed: str, rate_per_s: float
) -> dict[str, Any]:
    """Strike one stack so many times; the figures of the report."""
    wipe(StateFolder(folder))
    failure = None
    settings = {name: os.environ.get(name) or value for name, value in DEFAULTS.items()}
    with closing(Receiver(f"{seed} receiver")) as receiver, ExitStack() as context:
        told = {**settings, "BROKER": broker, "ORDER_STATUS_URL": receiver.orders_url}
        stack = context.enter_context(running_stack(folder, env=told))
        screen = context.enter_context(Screen(console, kills))
        screen.say(f"the stack is up, with the broker {broker}; logs in {folder / 'logs'}")
        run = Run(stack, receiver, screen, seed, rate_per_s, broker)
        try:
            with run.under_load():
                run.strike_all(draw(seed, kills))
                run.come_to_rest()
        except NotAtRest as error:
            failure = str(error)
            screen.say(f"[red]{escape(failure)}[/]")
        except BaseException:
            with suppress(KeyError, ProcessLookupError):  # nobody waits for what is under way
                os.kill(stack.pid_of(SUPERVISOR), signal.SIGHUP)
            raise
        return settle(run) | {"failure": failure}


if __name__ == "__main__":
    main()
