"""`payment-worker scheduler`, told to stop by SIGTERM at the worst moment: within the answer to a send."""

import os
import signal
import socket
import sys
from typing import Any

from payment_worker.cli import main

ANSWER_TO_A_SEND = (
    b":"  # an integer, how long the queue is now; nothing else that a scheduler asks is answered so
)

receive = socket.socket.recv


def receive_and_be_told(self: socket.socket, *arguments: Any) -> bytes:
    """Receive as ever. The first answer to a send brings the signal; it is handled before the return."""
    data = receive(self, *arguments)
    if data.startswith(ANSWER_TO_A_SEND) and socket.socket.recv is receive_and_be_told:
        socket.socket.recv = receive  # type: ignore[method-assign]
        os.kill(os.getpid(), signal.SIGTERM)
    return data


if __name__ == "__main__":
    socket.socket.recv = receive_and_be_told  # type: ignore[assignment,method-assign]
    sys.exit(main(["scheduler"]))
