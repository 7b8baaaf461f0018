"""The domain of accounts, pure: how registering and logging in can be refused."""

from shared.payments import PaymentError


class AccountExists(PaymentError):
    """The email address has an account already."""

    code = "ACCOUNT_EXISTS"


class WrongCredentials(PaymentError):
    """There is no account with this email address and this password; which of the two is not said."""

    code = "WRONG_CREDENTIALS"


class TooBusy(PaymentError):
    """Too many passwords are being looked at; the same may be tried again in a moment."""

    code = "TOO_BUSY"


class TooManyAttempts(PaymentError):
    """Too many logins have failed lately; the next is looked at in `retry_after_s` seconds."""

    code = "TOO_MANY_ATTEMPTS"

    def __init__(self, retry_after_s: int) -> None:
        """Say when to come back, and not what has failed how often."""
        super().__init__("Too many logins have failed; try again later")
        self.retry_after_s = retry_after_s
