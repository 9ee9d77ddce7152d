"""Bearer tokens of calls."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from modelreg._access.tokens import checked_token
from modelreg._wire.options import Options
from modelreg.errors import InvalidArgument

_MAX_TOKEN_BYTES = 64 * 1024


class Credentials(Protocol):
    """Where the token of each call comes from."""

    @property
    def may_block(self) -> bool:
        """Whether `token` may read files or use the network."""

    def token(self) -> str | None:
        """Return the token to send; None for none.

        Raises:
            Unauthenticated: The token expired and could not be refreshed.
        """

    def refresh(self, refused: str) -> bool:
        """Get another token, because the server refused this one. Return whether there is another one to try."""

    @property
    def note(self) -> str:
        """What the caller should know if the registry refuses a call for want of a valid token. Often empty."""


class NoToken:
    """Calls without a token.

    Args:
        note: See `Credentials`.
    """

    may_block = False

    def __init__(self, note: str = "") -> None:
        self.note = note

    def token(self) -> str | None:
        """See `Credentials`."""
        return None

    def refresh(self, refused: str) -> bool:
        """See `Credentials`."""
        del refused
        return False


class FixedToken(NoToken):
    """One token for all calls.

    Args:
        token: The token.
        name: What names it in errors.
    """

    def __init__(self, token: str, name: str = "token") -> None:
        super().__init__()
        self._token = checked_token(token, name)

    def token(self) -> str | None:
        """See `Credentials`."""
        return self._token


class TokenFile:
    """A token in a file that something else renews, for example the service account token of a Kubernetes pod.

    Args:
        path: The file, which is read for each call.
        name: What names the file in errors.
    """

    note = ""
    may_block = True

    def __init__(self, path: str, name: str) -> None:
        self._path = Path(path)
        self._name = name

    def token(self) -> str | None:
        """See `Credentials`."""
        try:
            with self._path.open("rb") as file:
                content = file.read(_MAX_TOKEN_BYTES)
        except OSError as error:
            raise InvalidArgument(f"{self._name}: {self._path} cannot be read: {error.strerror}.") from None
        return checked_token(content.decode("utf-8", "replace"), self._name)

    def refresh(self, refused: str) -> bool:
        """See `Credentials`."""
        return self.token() != refused


def check_token_may_be_sent(options: Options) -> None:
    """Refuse to send a token that others on the way could read.

    Raises:
        InvalidArgument: The connection is not encrypted and leaves this machine, and `insecure` is not set.
    """
    endpoint = options.endpoint
    if not (endpoint.is_encrypted or endpoint.is_loopback or options.insecure):
        raise InvalidArgument(
            f"{endpoint.url} is not encrypted, so others could read the token. Use grpcs:// or https://. If the "
            "network is trusted, allow it with insecure=True, --insecure or MODELREG_INSECURE=1."
        )
