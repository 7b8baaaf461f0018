"""Send orders to a running stack and print how each ends: `python -m deploy.local.ordering`."""

import argparse
import os
import sys
import threading
from decimal import Decimal
from pathlib import Path

import simplejson

from deploy.local.ordering.outcomes import Outcome, Outcomes, Verdict
from deploy.local.ordering.payments import Order, Payments


def main() -> int:
    """Send orders to a running stack and print how each ends; 1 when an outcome stays out for a minute."""
    parser = argparse.ArgumentParser("python -m deploy.local.ordering", description=__doc__)
    parser.add_argument("--orders", type=int, default=4, help="how many to send (default: %(default)s)")
    count: int = parser.parse_args().orders
    file = Path(os.environ.get("STATE_DIR") or ".local", "endpoints.json")  # there while the stack is up
    endpoints = simplejson.loads(file.read_text("utf-8"))
    orders = [Order(amount=Decimal(f"{20 + n}.{(50, 10, 75, 13)[n % 4]}")) for n in range(count)]
    waiting, all_heard = {order.order_id for order in orders}, threading.Event()

    def tell(outcome: Outcome, verdict: Verdict) -> None:
        if verdict == "new" and (order_id := outcome.data["orderId"]) in waiting:
            print(f"order {order_id} {outcome.data['status']}, heard on {outcome.topic}", flush=True)
            waiting.discard(order_id)
            if not waiting:
                all_heard.set()

    listen = Outcomes(endpoints["kafka_bootstrap_servers"], tell).run
    threading.Thread(target=listen, args=(all_heard,), daemon=True).start()
    payments = Payments(endpoints["api_url"])
    for order in orders:
        print(f"order {order.order_id} {payments.send(order).status}, {order.amount} asked for", flush=True)
    return 0 if not orders or all_heard.wait(60) else 1


if __name__ == "__main__":
    sys.exit(main())
