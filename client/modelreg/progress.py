"""How a transfer reports its progress.

`push` and `pull` take `progress`: None shows a bar on a terminal and in a notebook, and nothing elsewhere; True always
shows it, and False never. A function is called with the number of bytes done and the total, or None if that is unknown.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from modelreg.errors import InvalidArgument

ProgressFunction = Callable[[int, int | None], object]
"""Takes the bytes that are done, and the total or None. The number may fall: bytes that were lost are sent again."""
ProgressOption = bool | ProgressFunction | None

_BAR_DELAY_SECONDS = 0.5


class Progress:
    """The progress of one transfer. Use it as a context manager, which closes the bar.

    Args:
        option: What the caller chose.
        description: What is transferred, for example `vad:1.0`.
        total: Bytes of the whole. None if unknown.

    Raises:
        InvalidArgument: The option is none of those.
    """

    def __init__(self, option: ProgressOption, *, description: str, total: int | None) -> None:
        self._description = description
        self._total = total
        self._function: ProgressFunction | None = option if callable(option) else None
        self._has_bar = option is True or (option is None and _is_watched())
        self._bar: Any = None
        if self._function is None and not any(option is choice for choice in (True, False, None)):
            raise InvalidArgument(f"progress: {option!r} is none of None, True, False, and a function (done, total).")

    def update(self, done: int, total: int | None = None) -> None:
        """Report how many bytes are done. What the caller's function raises is raised here.

        Args:
            done: The bytes of the whole that are done.
            total: The bytes of the whole, if they were not known before.
        """
        self._total = self._total if total is None else total
        if self._function is not None:
            self._function(done, self._total)
        elif self._has_bar and (self._bar is not None or done != self._total):
            # A terminal that is gone must not end a transfer.
            with suppress(OSError, ValueError):
                # Not before there is something to wait for: a pull from the cache is done in less time than the bar
                # takes to import.
                if self._bar is None:
                    self._bar = _bar(self._description, self._total)
                self._bar.total = self._total
                self._bar.update(done - self._bar.n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.close()


def _is_watched() -> bool:
    """Tell whether a person sees a bar: in a notebook, or on a terminal."""
    interactive = sys.modules.get("IPython")
    if interactive is not None:
        shell = interactive.get_ipython()
        if shell is not None and type(shell).__name__ == "ZMQInteractiveShell":
            return True
    # None without a console (pythonw).
    stream: Any = sys.stderr
    try:
        return stream is not None and bool(stream.isatty())
    except (OSError, ValueError):
        return False


def _bar(description: str, total: int | None) -> Any:
    # Imported when it is shown: it takes as long as everything else together.
    with warnings.catch_warnings():
        # In a notebook without ipywidgets, tqdm warns, and shows the bar of terminals.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm  # noqa: PLC0415

    return tqdm(
        # Names come from other people, and the bar is on a terminal.
        desc="".join(character if character.isprintable() else "�" for character in description),
        total=total,
        unit="B",
        unit_scale=True,
        unit_divisor=1000,
        delay=_BAR_DELAY_SECONDS,
        dynamic_ncols=True,
    )
