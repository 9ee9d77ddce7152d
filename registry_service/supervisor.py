"""Keeps child processes running: one that ends, or that no longer answers, is replaced."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

logger = logging.getLogger(__name__)

# A child that hangs is noticed 8 to 15 s later: three probes of up to PROBE_TIMEOUT_SECONDS.
PROBE_TIMEOUT_SECONDS = 4.0
_PROBE_INTERVAL_SECONDS = 1.0
_STARTING_INTERVAL_SECONDS = 0.02
_MAX_FAILED_PROBES = 3
PATIENT_FAILED_PROBES = 6
"""For a child whose end costs much: that it hangs is noticed 24 to 30 s later."""

_POLL_SECONDS = 0.2
# A child that ends again and again is started at most this often. One that ran for this long starts at once.
_MAX_DELAY_SECONDS = 10.0


class Child(Protocol):
    """A process that can be started again."""

    name: str
    """For messages."""

    def launch(self) -> None:
        """Start the process, without waiting until it answers."""

    def poll(self) -> int | None:
        """Return the exit code of a process that has ended (negative: by that signal), else None."""

    def kill(self) -> None:
        """End a process that no longer answers, within seconds."""

    def reason(self) -> str:
        """Return why the process ended, as far as it said so; may be empty."""


class Liveness:
    """Probes a child again and again, in a thread of its own.

    Args:
        probe: Tells whether the child answers, within `PROBE_TIMEOUT_SECONDS`.
        start_seconds: How long the first process may take until it answers; infinite by default.
        restart_seconds: The same for its successors.
        failed_probes: After so many in a row it counts as hung.
    """

    def __init__(
        self,
        probe: Callable[[], bool],
        *,
        start_seconds: float = math.inf,
        restart_seconds: float = math.inf,
        failed_probes: int = _MAX_FAILED_PROBES,
    ) -> None:
        self._probe = probe
        self._failed_probes = failed_probes
        self._restart_seconds = restart_seconds
        self._deadline = time.monotonic() + start_seconds
        self._answered = threading.Event()
        self._failures = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)

    @property
    def is_hung(self) -> bool:
        """Whether the process has stopped answering, or has not begun to in time."""
        if not self._answered.is_set():
            return time.monotonic() > self._deadline
        return self._failures >= self._failed_probes

    @property
    def has_answered(self) -> bool:
        """Whether the process has answered at least once; from then on its silence counts."""
        return self._answered.is_set()

    def await_answer(self, seconds: float) -> bool:
        """Wait until the process answers for the first time; return whether it has."""
        return self._answered.wait(seconds)

    def restart(self) -> None:
        """Judge from now on the process that replaces the one before."""
        self._deadline = time.monotonic() + self._restart_seconds
        self._failures = 0
        self._answered.clear()

    def start(self) -> None:
        """Begin to probe."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            if self._probe():
                self._failures = 0
                self._answered.set()
            else:
                self._failures += 1
            if self._stopped.wait(_PROBE_INTERVAL_SECONDS if self._answered.is_set() else _STARTING_INTERVAL_SECONDS):
                return


class Supervised:
    """A child, with what is known of it.

    Args:
        child: Has been launched.
        liveness: Judges whether it answers; None where only its end counts.
        replaced: Called before each further launch.
    """

    def __init__(
        self, child: Child, liveness: Liveness | None = None, *, replaced: Callable[[], None] = lambda: None
    ) -> None:
        self.child = child
        self.liveness = liveness
        self._replaced = replaced
        self._launched = time.monotonic()
        self._delay = 0.0
        self._due: float | None = None
        self._is_known_to_answer = False

    def look(self) -> str:
        """Replace the process when that is necessary; return what there is to tell about it, mostly nothing."""
        now = time.monotonic()
        if self._due is not None:
            if now >= self._due:
                self._launch(now)
            return ""
        if self.child.poll() is None:
            if self.liveness is None or not self.liveness.is_hung:
                self._note_answer()
                return ""
            told = f"{self.child.name} does not answer any more"
            self.child.kill()
        else:
            told = f"{self.child.name} ended with {self.child.poll()}"
        reason = self.child.reason()
        has_run = now - self._launched > _MAX_DELAY_SECONDS
        self._delay = 0.0 if has_run else min(max(1.0, 2 * self._delay), _MAX_DELAY_SECONDS)
        self._due = now + self._delay
        told += f"; starting it again{f' in {self._delay:g} s' if self._delay else ''}"
        if reason:
            told += f" ({reason})"
        logger.error(told)
        return told

    def _note_answer(self) -> None:
        if self.liveness is not None and self.liveness.has_answered and not self._is_known_to_answer:
            self._is_known_to_answer = True
            logger.info("%s answers", self.child.name)

    def _launch(self, now: float) -> None:
        self._launched = now
        self._is_known_to_answer = False
        self._due = now + _MAX_DELAY_SECONDS
        try:
            self._replaced()
            self.child.launch()
        except OSError:  # no memory for a process, no space for its log
            logger.exception("%s cannot be started now", self.child.name)
            return
        self._due = None
        if self.liveness is not None:
            self.liveness.restart()


@contextmanager
def supervised(children: Sequence[Supervised]) -> Iterator[None]:
    """Probe children until the end of the block."""
    with ExitStack() as stack:
        for entry in children:
            if entry.liveness is not None:
                entry.liveness.start()
                stack.callback(entry.liveness.stop)
        yield


def keep_running(
    children: Sequence[Supervised],
    stopped: threading.Event,
    *,
    say: Callable[[str], None] = lambda _: None,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Replace children that end or hang, until the event is set.

    Must be called from the main thread: on Linux a child gets its death signal when
    the thread that started it ends.

    Args:
        children: Have been launched.
        stopped: Ends it.
        say: Is told of each replacement.
        meanwhile: Called several times a second.
    """
    while not stopped.wait(_POLL_SECONDS):
        for child in children:
            if told := child.look():
                with suppress(OSError):  # where its words go there may be no space
                    say(told)
        meanwhile()
