"""What a bearer token looks like."""

from __future__ import annotations

from modelreg.errors import InvalidArgument


def checked_token(token: str, name: str) -> str:
    """Return a token without the space around it.

    Raises:
        InvalidArgument: The token cannot be sent in a header. The message does not show it.
    """
    token = token.strip()
    if token.lower().startswith("bearer "):
        raise InvalidArgument(f"{name}: pass the token alone, without 'Bearer' before it.")
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidArgument(f"{name}: is empty, or has characters that no token has, such as spaces.")
    return token
