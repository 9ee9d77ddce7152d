"""Restart child processes that exit or stop responding."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

logger = logging.getLogger(__name__)

# A child that hangs is detected after 8 to 15 s: three failed probes of up to PROBE_TIMEOUT_SECONDS.
PROBE_TIMEOUT_SECONDS = 4.0
_PROBE_INTERVAL_SECONDS = 1.0
_STARTING_INTERVAL_SECONDS = 0.02
_MAX_FAILED_PROBES = 3
EXPENSIVE_CHILD_FAILED_PROBES = 6
"""For a child whose restart is expensive: a hang is detected after 24 to 30 s."""

_POLL_SECONDS = 0.2
# The longest delay before a restart. A child that ran for longer than this is restarted without delay.
_MAX_DELAY_SECONDS = 10.0


class Child(Protocol):
    """A process that can be restarted."""

    name: str
    """Name in log lines and messages."""

    def launch(self) -> None:
        """Start the process without waiting until it responds."""

    def poll(self) -> int | None:
        """Return the exit code of the process (negative: the signal that ended it), or None while it runs."""

    def kill(self) -> None:
        """End a process that no longer responds, within seconds."""

    def reason(self) -> str:
        """Return why the process exited, as far as its log says so; may be empty."""


class Liveness:
    """Probe a child periodically in a separate thread.

    Args:
        probe: Returns whether the child responds, within `PROBE_TIMEOUT_SECONDS`.
        start_seconds: Time until the first process must respond; infinite by default.
        restart_seconds: Time until a restarted process must respond; infinite by default.
        failed_probes: Number of consecutive failed probes after which the child counts as hung.
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
        self._responded = threading.Event()
        self._failures = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)

    @property
    def is_hung(self) -> bool:
        """Whether the process has stopped responding, or did not respond in time after its start."""
        if not self._responded.is_set():
            return time.monotonic() > self._deadline
        return self._failures >= self._failed_probes

    @property
    def has_responded(self) -> bool:
        """Whether the process has responded at least once since its start."""
        return self._responded.is_set()

    def wait_for_response(self, seconds: float) -> bool:
        """Wait until the process responds for the first time. Return whether it has."""
        return self._responded.wait(seconds)

    def reset(self) -> None:
        """Forget the previous process; from now on the probes are those of its replacement."""
        self._deadline = time.monotonic() + self._restart_seconds
        self._failures = 0
        self._responded.clear()

    def start(self) -> None:
        """Start to probe."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            if self._probe():
                self._failures = 0
                self._responded.set()
            else:
                self._failures += 1
            if self._stopped.wait(_PROBE_INTERVAL_SECONDS if self._responded.is_set() else _STARTING_INTERVAL_SECONDS):
                return


class SupervisedChild:
    """A child with its liveness and the time of its next restart.

    Args:
        child: Must be launched already.
        liveness: Detects that the child hangs; None if only its exit counts.
        on_restart: Called before each restart.
    """

    def __init__(
        self, child: Child, liveness: Liveness | None = None, *, on_restart: Callable[[], None] = lambda: None
    ) -> None:
        self.child = child
        self.liveness = liveness
        self._on_restart = on_restart
        self._launched = time.monotonic()
        self._delay = 0.0
        self._due: float | None = None
        self._response_is_logged = False

    def check(self) -> str:
        """Restart the process if it exited or hangs. Return a message for the terminal, usually empty."""
        now = time.monotonic()
        if self._due is not None:
            if now >= self._due:
                self._launch(now)
            return ""
        if self.child.poll() is None:
            if self.liveness is None or not self.liveness.is_hung:
                self._log_first_response()
                return ""
            message = f"{self.child.name} does not respond"
            self.child.kill()
        else:
            message = f"{self.child.name} exited with {self.child.poll()}"
        reason = self.child.reason()
        has_run = now - self._launched > _MAX_DELAY_SECONDS
        self._delay = 0.0 if has_run else min(max(1.0, 2 * self._delay), _MAX_DELAY_SECONDS)
        self._due = now + self._delay
        message += f"; restarting it{f' in {self._delay:g} s' if self._delay else ''}"
        if reason:
            message += f" ({reason})"
        logger.error(message)
        return message

    def _log_first_response(self) -> None:
        if self.liveness is not None and self.liveness.has_responded and not self._response_is_logged:
            self._response_is_logged = True
            logger.info("%s responds", self.child.name)

    def _launch(self, now: float) -> None:
        self._launched = now
        self._response_is_logged = False
        self._due = now + _MAX_DELAY_SECONDS
        try:
            self._on_restart()
            self.child.launch()
        except OSError:  # no memory for a process, or no disk space for its log
            logger.exception("could not restart %s", self.child.name)
            return
        self._due = None
        if self.liveness is not None:
            self.liveness.reset()


@contextmanager
def probing(children: Sequence[SupervisedChild]) -> Iterator[None]:
    """Probe children until the end of the block."""
    with ExitStack() as stack:
        for child in children:
            if child.liveness is not None:
                child.liveness.start()
                stack.callback(child.liveness.stop)
        yield


def keep_running(
    children: Sequence[SupervisedChild],
    stopped: threading.Event,
    *,
    echo: Callable[[str], None] = lambda _: None,
    each_poll: Callable[[], None] = lambda: None,
) -> None:
    """Restart children that exit or hang, until the event is set.

    Call it from the main thread: on Linux a child gets its death signal when the thread that started it ends.

    Args:
        children: Must be launched already.
        stopped: Ends the supervision.
        echo: Receives a message about each restart.
        each_poll: Called several times a second.
    """
    while not stopped.wait(_POLL_SECONDS):
        for child in children:
            if message := child.check():
                with suppress(OSError):  # the terminal's output may go to a full disk
                    echo(message)
        each_poll()
