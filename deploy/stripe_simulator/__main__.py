"""Run the Stripe simulator in the foreground: python -m deploy.stripe_simulator --port 12111 --state FILE."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from aiohttp import web

from deploy.stripe_simulator.app import build_app
from deploy.stripe_simulator.logs import configure_logs
from deploy.stripe_simulator.simulator import Simulator
from deploy.stripe_simulator.store import StateUnusable

STOP_GRACE_S = 0.2  # for calls in flight, waited twice; what has not been charged by then never is
BACKLOG = 1024

log = logging.getLogger("deploy.stripe_simulator")


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    arguments = _parser().parse_args()
    configure_logs()
    log.setLevel(logging.INFO)
    try:
        asyncio.run(serve(arguments.host, arguments.port, arguments.state))
    except (StateUnusable, OSError) as error:
        log.critical("cannot start", extra={"reason": str(error)})
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.stripe_simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=12111, help="port; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--state", type=Path, required=True, help="SQLite file that keeps everything; made if absent"
    )
    return parser


async def serve(host: str, port: int, state: Path) -> None:
    """Serve on host:port until the process is asked to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    simulator = Simulator(state)
    try:
        runner = web.AppRunner(build_app(simulator), access_log=None, shutdown_timeout=STOP_GRACE_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
            bound_host, bound_port = runner.addresses[0][:2]
            log.info("listening", extra={"url": f"http://{bound_host}:{bound_port}", "state": str(state)})
            await stop.wait()
        finally:
            await runner.cleanup()
    finally:
        simulator.close()


if __name__ == "__main__":
    sys.exit(main())
