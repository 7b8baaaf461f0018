"""What a process survives, and ought not to meet: heard of all the same."""

import sys
from typing import Final


class Complaints:
    """Stands in for the courier's log: what it survives and ought not to meet is heard of."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.heard: list[str] = []

    def exception(self, what: str, **_: object) -> None:
        """As a log's."""
        self.heard.append(f"{what}: {sys.exc_info()[1]!r}")

    def info(self, *_: object, **__: object) -> None:
        """Nobody reads it."""

    warning = error = info


COMPLAINTS: Final = Complaints()
