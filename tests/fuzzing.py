"""The settings of fuzzing tests, and the check that no response shows internals.

`FUZZ_SECONDS` is how long each test of `fuzz` goes on after its first round (default 0: one round). `FUZZ_SEED` is the
seed of the first round (default 0). The same seed makes the same inputs, however many rounds there is time for.
Hypothesis prints the reduced input of a failure; add it to a test.
"""

import os
import re
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

_INTERNALS = re.compile(
    r"Traceback|psycopg|sqlalchemy|site-packages|registry_service|\.py\b|/tmp/|urllib3|minio\.error"
    r"|\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM) \w|statement_timeout|Exception deserializing",
    re.IGNORECASE,
)

ODD_TEXTS = (
    "",
    "\0",
    "a\0b",
    "../../../etc/passwd",
    "..%2f..%2fetc",
    "C:\\windows",
    "/absolute",
    "a" * 300,
    "é" * 5_000,
    "x" * 9_000,
    "\u202egnp.exe",
    "\ufeff\u200b",
    "\U0010ffff",
    "e\u0301" * 40,
    "'; DROP TABLE models; --",
    "%s%n%d {0} ${x}",
    "\r\nx-injected: 1",
    "*",
    "null",
    "NaN",
    "-0",
    "9" * 400,
    "[" * 500,
    '{"a":' * 200,
    "2026-13-45T99:99:99Z",
)
"""Texts that often break programs."""


def fuzz(examples: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], None]:
    """Run the decorated function at once, with `examples` inputs a round, for `FUZZ_SECONDS`."""

    def run(check: Callable[..., None]) -> None:
        deadline = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "0"))
        for number in count(int(os.environ.get("FUZZ_SEED", "0"))):
            # Skip the explaining phase: it traces every line, which is slow against a server.
            budget = settings(
                max_examples=examples,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.target, Phase.shrink],
            )
            seed(number)(budget(given(**strategies)(check)))()
            if time.monotonic() > deadline:
                return

    return run


def check_no_internals(*texts: str | bytes) -> None:
    """Fail if a response shows what is behind the API."""
    for text in texts:
        shown = text if isinstance(text, str) else text.decode(errors="replace")
        assert not _INTERNALS.findall(shown), shown[:1_000]
