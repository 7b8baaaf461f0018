"""Register an account, and find out whether somebody is who they say."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.accounts import AccountExists, TooBusy, WrongCredentials
from shared.commands.throttling import Subject, count_login, forgive, uncount
from shared.database import Sessions, lock, new_id, reading
from shared.models_accounts import Account
from shared.passwords import Passwords
from shared.sealing import Sealer

EMAIL, NAME, PHONE = "account.email", "account.name", "account.phone"
LOGIN = "failed_logins.email"
ADDRESS = "failed_logins.address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """A checked command: somebody wants an account."""

    name: str
    email: str
    password: str
    phone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIn:
    """A checked command: somebody says who they are. `address` is the network's site, where it is known."""

    email: str
    password: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Person:
    """Who has logged in."""

    account_id: uuid.UUID
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginLimits:
    """How many logins may fail within a quarter of an hour."""

    per_email: int
    per_address: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """What accounts need; one per process."""

    sessions: Sessions
    sealer: Sealer
    passwords: Passwords
    limits: LoginLimits

    def register(self, command: Register) -> uuid.UUID:
        """Make an account and return its id. Raises AccountExists, TooBusy.

        Of many that race for one email address one gets it. The password is hashed first, so that nobody
        waits for a hash with a connection in hand.
        """
        password_hash = self.passwords.hash(command.password)
        email = command.email.casefold()
        fingerprints = self.sealer.fingerprints(email, EMAIL)
        row = {
            "id": new_id(),
            "email_fingerprint": fingerprints[0],
            "email_sealed": self.sealer.seal(email, EMAIL),
            "name_sealed": self.sealer.seal(command.name, NAME),
            "phone_sealed": self.sealer.seal(command.phone, PHONE),
            "password_hash": password_hash,
            "created_at": func.clock_timestamp(),
        }
        with self.sessions.begin() as session:
            if len(fingerprints) > 1:
                # While the key is being replaced the unique index alone cannot see that two are the same.
                lock(session, "account", min(fingerprints).hex())
                if session.scalar(select(Account.id).where(Account.email_fingerprint.in_(fingerprints))):
                    raise AccountExists("This email address has an account already")
            added = insert(Account).values(row).on_conflict_do_nothing().returning(Account.id)
            made = session.scalar(added)
        if made is None:
            raise AccountExists("This email address has an account already")
        return made

    def log_in(self, command: LogIn) -> Person:
        """Find out who this is. Raises WrongCredentials, TooManyAttempts, TooBusy.

        It takes as long for an email address that nobody has as for a wrong password.
        """
        email = command.email.casefold()
        person, others = self._subjects(email, command.address)
        count_login(self.sessions, [person, *others])
        account = self._find(email)
        stored = account.password_hash if account else None
        try:
            is_right = self.passwords.matches(stored, command.password)
        except TooBusy:
            uncount(self.sessions, [person, *others])
            raise
        if not is_right or account is None:
            raise WrongCredentials("The email address or the password is wrong")
        forgive(self.sessions, person, others)
        self._keep_up(account, command.password)
        return Person(account.id, self.sealer.open(account.name_sealed, NAME))

    def _subjects(self, email: str, address: str | None) -> tuple[Subject, Sequence[Subject]]:
        person = Subject(self.sealer.fingerprint(email, LOGIN), self.limits.per_email)
        if not address:
            return person, ()
        return person, (Subject(self.sealer.fingerprint(address, ADDRESS), self.limits.per_address),)

    def _find(self, email: str) -> Account | None:
        fingerprints = self.sealer.fingerprints(email, EMAIL)
        with reading(self.sessions) as session:
            return session.scalars(select(Account).where(Account.email_fingerprint.in_(fingerprints))).first()

    def _keep_up(self, account: Account, password: str) -> None:
        """Hash anew what was hashed with yesterday's parameters: only now is the password at hand."""
        if not self.passwords.is_outdated(account.password_hash):
            return
        renewed = self.passwords.hash(password)
        with self.sessions.begin() as session:
            same = (Account.id == account.id, Account.password_hash == account.password_hash)
            session.execute(update(Account).where(*same).values(password_hash=renewed))
