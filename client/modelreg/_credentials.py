"""Bearer tokens of calls."""

from __future__ import annotations

from typing import Protocol

from modelreg._options import Options
from modelreg.errors import InvalidArgument


class Credentials(Protocol):
    """Where the token of each call comes from."""

    def token(self) -> str | None:
        """Return the token to send; None for none. May read files and refresh the token over the network.

        Raises:
            Unauthenticated: The token expired and could not be refreshed.
        """

    def refresh(self, refused: str) -> bool:
        """Get another token, because the server refused this one. Return whether there is another one to try."""


class NoToken:
    """Calls without a token."""

    def token(self) -> str | None:
        """See `Credentials`."""
        return None

    def refresh(self, refused: str) -> bool:
        """See `Credentials`."""
        del refused
        return False


class FixedToken(NoToken):
    """One token for all calls."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self) -> str | None:
        """See `Credentials`."""
        return self._token


def check_token_may_be_sent(options: Options) -> None:
    """Refuse to send a token that others on the way could read.

    Raises:
        InvalidArgument: The connection is not encrypted and leaves this machine, and `insecure` is not set.
    """
    endpoint = options.endpoint
    if not (endpoint.is_encrypted or endpoint.is_loopback or options.insecure):
        raise InvalidArgument(
            f"{endpoint.url} is not encrypted, so others could read the token. Use grpcs:// or https://, or pass "
            "insecure=True if the network is trusted."
        )
