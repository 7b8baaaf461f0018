"""Faults on demand: a queue of failures that the next matching requests meet."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from deploy.stripe_simulator.store import Store


class FaultKind(StrEnum):
    """What can go wrong with a request."""

    LOST_RESPONSE = "lost_response"  # done and kept, then the connection closes without an answer
    ERROR_BEFORE = "error_before"  # 500, nothing done; the 500 is the key's answer
    ERROR_AFTER = "error_after"  # 500 although done; the 500 is the key's answer
    RATE_LIMIT = "rate_limit"  # 429 before anything is done
    LOCK_TIMEOUT = "lock_timeout"  # 429 before anything is done
    CONNECTION_RESET = "connection_reset"  # TCP reset before anything is done
    UNAVAILABLE = "unavailable"  # as connection_reset, of reads too, until the faults are cleared


@dataclass(slots=True, eq=False)
class Fault:
    """A failure that `times` requests will meet, None meaning all until the faults are cleared.

    It meets only POSTs, GETs too if `reads`; only those whose metadata, or that of the object they name,
    holds all of `match`; only those whose path is like the pattern `path`, e.g.
    `/v1/payment_intents/*/capture`.
    """

    kind: FaultKind
    times: int | None = 1
    match: Mapping[str, str] = field(default_factory=dict)
    path: str | None = None
    reads: bool = False

    def __post_init__(self) -> None:
        """Let an outage be one."""
        if self.kind is FaultKind.UNAVAILABLE:
            self.times, self.reads = None, True

    def concerns(self, metadata: Mapping[str, str], path: str, *, read: bool) -> bool:
        """Tell whether a request to `path` with this metadata meets the fault; `read` says it is a GET."""
        return (
            (self.reads or not read)
            and (self.path is None or fnmatchcase(path, self.path))
            and all(metadata.get(name) == value for name, value in self.match.items())
        )


FIELDS = {"kind", "times", "match", "path", "reads"}


class Faults:
    """The queue, first in first out, kept across restarts."""

    SETTING = "faults"

    def __init__(self, store: Store) -> None:
        """Take up what is left from before a restart."""
        self._store = store
        kept = store.setting(self.SETTING) or []
        self._queue = [Fault(**{**item, "kind": FaultKind(item["kind"])}) for item in kept]

    def __bool__(self) -> bool:
        """Tell whether any fault is left."""
        return bool(self._queue)

    def add(self, fault: Fault) -> None:
        """Queue a fault."""
        self._queue.append(fault)
        self._keep()

    def clear(self) -> None:
        """Drop all that is left."""
        self._queue.clear()
        self._keep()

    def take(self, metadata: Mapping[str, str], path: str, *, read: bool) -> Fault | None:
        """Use up one time of the first fault that concerns the request, and return the fault."""
        fault = next((fault for fault in self._queue if fault.concerns(metadata, path, read=read)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            self._queue = [fault for fault in self._queue if fault.times != 0]
            self._keep()
        return fault

    def give_back(self, fault: Fault) -> None:
        """Return a time that was taken and then not used, to the front of the queue."""
        if fault.times is None:
            return
        fault.times += 1
        if fault not in self._queue:
            self._queue.insert(0, fault)
        self._keep()

    def left(self) -> list[dict[str, Any]]:
        """Return what is left, as it was asked for."""
        unset = (("path", None), ("reads", False))
        return [
            {name: value for name, value in asdict(fault).items() if (name, value) not in unset}
            for fault in self._queue
        ]

    def _keep(self) -> None:
        self._store.keep_setting(self.SETTING, self.left())
