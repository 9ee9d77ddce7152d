"""What git tells about the working directory: the commit, whether files were changed since, and the remote.

Nothing here raises because of git: without git, outside of a repository, or when git takes too long, there is less to
tell.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_TIMEOUT_SECONDS = 10.0
"""For all calls of git together: they must not keep a push waiting on a slow disk."""
_MAX_URL_LENGTH = 2000
_SCHEMES = {"http", "https", "ssh", "git", "git+ssh", "ssh+git"}
_SCP_LIKE = re.compile(r"(?:[\w.+-]+@)?(?:[\w.-]{2,}|\[[0-9A-Fa-f:.]+\]):(?!/?/)[^\s\x00-\x1f\x7f]+")
"""`user@host:path`. A host of one letter is a drive of Windows."""
# A repository that somebody else made can name programs in its configuration. These are the ones that our calls would
# start.
_SAFE_OPTIONS = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "diff.relative=false")


@dataclass(frozen=True)
class Checkout:
    """The repository of the working directory. What is unknown is empty or None."""

    repository: str = ""
    """URL of the remote `origin`, or of the first remote, without credentials."""
    commit: str = ""
    is_dirty: bool | None = None
    """Whether tracked files differ from the commit."""


def checkout() -> Checkout:
    """Return the repository of the working directory. In a submodule, that is the submodule."""
    git = _executable()
    if git is None:
        return Checkout()
    calls = _Calls(git)
    commit = calls.output("rev-parse", "--verify", "--quiet", "HEAD") or ""
    return Checkout(
        repository=_repository(calls),
        commit=commit if re.fullmatch(r"[0-9a-f]{40,64}", commit) else "",
        is_dirty=_is_dirty(calls) if commit else None,
    )


def _executable() -> str | None:
    """Return the path of git, or None."""
    try:
        found = shutil.which("git")
        # Windows looks in the working directory first, where a repository may have a program of this name.
        return None if found is None or Path(found).absolute().parent == Path.cwd() else found
    except OSError:  # the working directory was removed
        return None


class _Calls:
    """Calls of git that end within a common time."""

    def __init__(self, git: str) -> None:
        self._git = git
        self._deadline = time.monotonic() + _TIMEOUT_SECONDS

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str] | None:
        """Run git, and return what became of it, or None if it could not be run or took too long."""
        try:
            return subprocess.run(
                [self._git, *_SAFE_OPTIONS, *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
                # Neither ask for a password nor download what a partial clone lacks.
                env=os.environ | {"GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"},
                timeout=max(self._deadline - time.monotonic(), 0.1),
            )
        except (OSError, ValueError, subprocess.SubprocessError):
            return None

    def output(self, *arguments: str) -> str | None:
        """Return what git prints, or None if it fails."""
        run = self.run(*arguments)
        return run.stdout.strip() if run is not None and run.returncode == 0 else None


def _is_dirty(calls: _Calls) -> bool | None:
    run = calls.run("diff", "--quiet", "--no-ext-diff", "--no-textconv", "HEAD", "--")
    return None if run is None or run.returncode not in {0, 1} else run.returncode == 1


def _repository(calls: _Calls) -> str:
    remotes = (calls.output("remote") or "").split("\n")
    remote = "origin" if "origin" in remotes else remotes[0]
    url = calls.output("remote", "get-url", "--", remote) if remote else None
    return without_credentials(url or "")


def without_credentials(url: str) -> str:
    """Return the URL of a remote without its credentials, query and fragment.

    Empty if it is not one that others can use: a local path, or text that is not understood and might hold a secret.
    """
    if len(url) > _MAX_URL_LENGTH:
        return ""
    if "://" not in url:
        return url if _SCP_LIKE.fullmatch(url) else ""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        user = parts.username
    except ValueError:
        return ""
    if parts.scheme not in _SCHEMES or not host or re.search(r"[\s\x00-\x1f\x7f]", url):
        return ""
    # The user of HTTP may be a token. That of SSH is part of the address.
    if "ssh" in parts.scheme and user:
        host = f"{user}@{host}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
