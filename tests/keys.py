"""The key that tests seal with."""

from typing import Final

DATA_KEY: Final = "a key of the tests, which no other place may ever use"
