"""Columns whose values are sealed on their way into the database and opened on their way out."""

from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine, LargeBinary, TypeDecorator
from sqlalchemy.orm import Session

from shared.sealing import NoKey, Sealer

# What those see who have no key at all: operators' commands, which need none for what they show.
UNOPENED = "(sealed)"
_sealers: WeakKeyDictionary[Dialect, Sealer] = WeakKeyDictionary()


def use_sealer(engine: Engine, sealer: Sealer) -> None:
    """Seal and open with this sealer whatever this engine writes and reads."""
    _sealers[engine.dialect] = sealer


def sealer_of(session: Session | Connection) -> Sealer:
    """The sealer of the engine beneath. Raises NoKey where there is none."""
    bind = session.get_bind() if isinstance(session, Session) else session
    return _sealer(bind.dialect)


def _sealer(dialect: Dialect) -> Sealer:
    sealer = _sealers.get(dialect)
    if sealer is None:
        raise NoKey("this process has no DATA_KEY: what is sensitive cannot be stored")
    return sealer


class Sealed(TypeDecorator[str]):
    """A text that is stored sealed, about what the column is."""

    impl = LargeBinary
    cache_ok = True

    def __init__(self, about: str) -> None:
        """`about` is the table and the column."""
        super().__init__()
        self.about = about

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Seal. Raises NoKey."""
        return None if value is None else _sealer(dialect).seal(value, self.about)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Open; `UNOPENED` in a process that has no key. Raises CannotOpen."""
        if value is None:
            return None
        sealer = _sealers.get(dialect)
        return sealer.open(value, self.about) if sealer and sealer.has_keys else UNOPENED
