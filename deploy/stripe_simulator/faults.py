"""Faults on demand: a queue of failures that the next matching requests meet."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from deploy.stripe_simulator.store import Store


class FaultKind(StrEnum):
    """What can go wrong with a POST."""

    LOST_RESPONSE = "lost_response"  # done and kept, then the connection closes without an answer
    ERROR_BEFORE = "error_before"  # 500, nothing done; the 500 is the key's answer
    ERROR_AFTER = "error_after"  # 500 although done; the 500 is the key's answer
    RATE_LIMIT = "rate_limit"  # 429 before anything is done
    LOCK_TIMEOUT = "lock_timeout"  # 429 before anything is done
    CONNECTION_RESET = "connection_reset"  # TCP reset before anything is done


@dataclass(slots=True, eq=False)
class Fault:
    """A failure that `times` requests will meet, or only those whose metadata holds all of `match`."""

    kind: FaultKind
    times: int = 1
    match: Mapping[str, str] = field(default_factory=dict)

    def concerns(self, metadata: Mapping[str, str]) -> bool:
        """Tell whether a request with this metadata meets the fault."""
        return all(metadata.get(name) == value for name, value in self.match.items())


class Faults:
    """The queue, first in first out, kept across restarts."""

    SETTING = "faults"

    def __init__(self, store: Store) -> None:
        """Take up what is left from before a restart."""
        self._store = store
        kept = store.setting(self.SETTING) or []
        self._queue = [Fault(FaultKind(item["kind"]), item["times"], item["match"]) for item in kept]

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

    def take(self, metadata: Mapping[str, str]) -> Fault | None:
        """Use up one time of the first fault that concerns the request, and return the fault."""
        fault = next((fault for fault in self._queue if fault.concerns(metadata)), None)
        if fault is not None:
            fault.times -= 1
            self._queue = [fault for fault in self._queue if fault.times > 0]
            self._keep()
        return fault

    def give_back(self, fault: Fault) -> None:
        """Return a time that was taken and then not used, to the front of the queue."""
        fault.times += 1
        if fault not in self._queue:
            self._queue.insert(0, fault)
        self._keep()

    def left(self) -> list[dict[str, Any]]:
        """Return what is left, as it was asked for."""
        return [asdict(fault) for fault in self._queue]

    def _keep(self) -> None:
        self._store.keep_setting(self.SETTING, self.left())
