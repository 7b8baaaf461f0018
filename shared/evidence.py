"""Keep what was said to the gateway and back in object storage, sealed, beside the way of every payment.

A folder or a bucket, through fsspec: `/var/lib/payments/evidence`, `s3://bucket/prefix`. Names begin with the
day, so that what is too old can be found without looking at the rest.
"""

import os
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shared.documents import parse_json, render_json
from shared.sealing import Sealer

ABOUT = "evidence:"
FINISHED, UNFINISHED = ".sealed", ".part"
DAY_LETTERS, DAY_DASHES = len("2026-11-21"), 2


class NoEvidence(Exception):
    """There is nothing under this reference: it was never written, or its time is over."""


def reference_of(at: datetime, payment_id: UUID, operation_id: UUID, attempt: int) -> str:
    """Where the evidence of an attempt is, or will be."""
    return f"{at.date().isoformat()}/{payment_id}/{operation_id}-{attempt}"


class EvidenceStore:
    """The folder or bucket that a URL names; every call may raise what its file system raises."""

    def __init__(self, url: str, sealer: Sealer) -> None:
        """No file is touched and nothing is connected to yet."""
        # Listings that are remembered would hide what another process has written.
        self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._sealer = sealer

    def write(self, reference: str, document: Any) -> None:
        """Seal a document and store it under its reference, whole or not at all."""
        path = self._path(reference)
        sealed = self._sealer.seal(render_json(document), ABOUT + reference)
        if not isinstance(self._files, LocalFileSystem):
            self._files.pipe_file(path, sealed)  # object storage shows an object only when all of it is there
            return
        # Not in a transaction of fsspec's: it takes three times as long, and begins in the folder for
        # temporary files, from where a file may have to be copied.
        try:
            _write_whole(path, sealed)
        except FileNotFoundError:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            _write_whole(path, sealed)

    def read(self, reference: str) -> Any:
        """The document under a reference. Raises NoEvidence, CannotOpen."""
        try:
            sealed = self._files.cat_file(self._path(reference))
        except FileNotFoundError:
            raise NoEvidence(reference) from None
        return parse_json(self._sealer.open(sealed, ABOUT + reference))

    def purge(self, before: date) -> int:
        """Remove the evidence of all days before this one; return how many days there were."""
        old = [day for day in self._days() if day < before.isoformat()]
        for day in old:
            self._files.rm(f"{self._root}/{day}", recursive=True)
        return len(old)

    def reseal(self) -> Iterator[str]:
        """Seal anew what is not under the current key, one after the other; yield each one's reference."""
        for day in self._days():
            for path in self._files.find(f"{self._root}/{day}"):
                if not path.endswith(FINISHED):
                    continue  # a crash left it half written; it goes with its day
                reference = path.removesuffix(FINISHED)[path.index(f"/{day}/") + 1 :]
                if not self._sealer.is_current(self._files.cat_file(path)):
                    self.write(reference, self.read(reference))
                    yield reference

    def _days(self) -> list[str]:
        try:
            paths = self._files.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        names = (path.rstrip("/").rpartition("/")[2] for path in paths)
        return sorted(name for name in names if len(name) == DAY_LETTERS and name.count("-") == DAY_DASHES)

    def _path(self, reference: str) -> str:
        return f"{self._root}/{reference}{FINISHED}"


def _write_whole(path: str, content: bytes) -> None:
    unfinished = path.removesuffix(FINISHED) + UNFINISHED
    with open(unfinished, "wb", buffering=0, opener=_private) as file:
        file.write(content)
    Path(unfinished).replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
