"""The command `mreg` for tests: inside the process, in a process of its own, and on a terminal."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from click.testing import CliRunner
from modelreg.cli import main

COMMAND = [sys.executable, "-m", "modelreg"]
_SECONDS = 60


@dataclass
class Ended:
    """What a run printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """The cells of a table, as programs get them."""
        assert self.code == 0, self.err
        return [line.split("\t") for line in self.out.splitlines()]


@dataclass
class Mreg:
    """Runs `mreg` with a registry and directories of its own, which the environment names."""

    url: str

    def __call__(self, *arguments: str, given: bytes | None = None) -> Ended:
        """Run a command inside this process, which saves the time to start one."""
        result = CliRunner().invoke(main, [*arguments, "--url", self.url], input=given, prog_name="mreg")
        return Ended(result.exit_code, result.stdout, result.stderr)

    def environment(self, **variables: str) -> dict[str, str]:
        return {**os.environ, "MODELREG_URL": self.url, **variables}

    def process(self, *arguments: str, given: bytes | None = None, variables: Mapping[str, str] | None = None) -> Ended:
        """Run a command in a process, with pipes."""
        ended = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment(**(variables or {})),
            input=b"" if given is None else given,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    @contextlib.contextmanager
    def started(self, *arguments: str, stdout: int | IO[bytes] = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command in a process."""
        with subprocess.Popen(
            [*COMMAND, *arguments], env=self.environment(), stdout=stdout, stderr=subprocess.PIPE
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def terminal(
        self,
        *arguments: str,
        typed: str = "",
        prompt: str = "",
        columns: int = 100,
        variables: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a command on a terminal, which shows stdout and stderr. Both are in `out`.

        Args:
            arguments: The arguments.
            typed: What is typed.
            prompt: What is shown before that. A hidden prompt forgets what was typed earlier.
            columns: The width of the terminal.
            variables: More of the environment.
        """
        with self.on_terminal(*arguments, columns=columns, variables=variables) as terminal:
            terminal.type(typed, prompt)
            return terminal.ended()

    @contextlib.contextmanager
    def on_terminal(
        self,
        *arguments: str,
        columns: int = 100,
        variables: Mapping[str, str] | None = None,
        stdin: IO[bytes] | None = None,
    ) -> Iterator[Terminal]:
        """Start a command on a terminal. `stdin` may be something else."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = self.environment(**{"TERM": "xterm-256color", "NO_COLOR": "", **(variables or {})})
        for variable in ("COLUMNS", "LINES"):
            environment.pop(variable, None)
        # The leader of a session that opens a terminal is controlled by it, so that Ctrl-C has an effect.
        controlled = ["sh", "-c", 'exec 3<>"$0" 3>&-; exec "$@"', os.ttyname(theirs)]
        with subprocess.Popen(
            [*controlled, *COMMAND, *arguments],
            env=environment,
            stdin=stdin or theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            try:
                yield Terminal(process, ours)
            finally:
                os.close(ours)
                if process.poll() is None:
                    process.kill()


@dataclass
class Terminal:
    """A terminal on which a command runs."""

    process: subprocess.Popen[bytes]
    descriptor: int
    _shown: bytes = b""

    def type(self, text: str, prompt: str = "") -> None:
        """Type a text, once the prompt is shown."""
        while prompt.encode() not in self._shown and self._read():
            pass
        os.write(self.descriptor, text.encode())

    def shown(self) -> str:
        """Return what was shown until now."""
        while select.select([self.descriptor], [], [], 0)[0] and self._read():
            pass
        return self._shown.decode(errors="backslashreplace").replace("\r\n", "\n")

    def ended(self) -> Ended:
        """Wait for the end of the command."""
        while select.select([self.descriptor], [], [], _SECONDS)[0] and self._read():
            pass
        return Ended(self.process.wait(_SECONDS), self.shown(), "")

    def _read(self) -> bool:
        try:
            data = os.read(self.descriptor, 65_536)
        except OSError as error:
            # How Linux says that the other end is closed.
            if error.errno != errno.EIO:
                raise
            return False
        self._shown += data
        return bool(data)
