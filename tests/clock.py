"""A clock that stands still until a test moves it."""


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        """Start somewhere that is not zero, as a real monotonic clock does."""
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Read the clock."""
        return self.now_s

    def move(self, seconds: float) -> None:
        """Let this much time pass; also what a sleep of that length does."""
        self.now_s += seconds
