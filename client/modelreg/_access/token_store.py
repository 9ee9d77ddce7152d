"""Where the tokens of profiles are kept: in the keyring of the system, or in files that only this user can read.

The keyring is used if the package `keyring` is installed (by the extra `keyring` of the client) and finds a keyring
that it recommends. `PYTHON_KEYRING_BACKEND=keyring.backends.null.Keyring` turns it off. Without a keyring, or if the
keyring refuses a token, the token is in the file `token.PROFILE.json` of the configuration directory, with mode 0600.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelreg._files import lock_file, make_private_directory, read_small_file, write_private_file
from modelreg._logging import logger
from modelreg.errors import InvalidArgument

_VERSION = 1
_SERVICE = "modelreg"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """How an OpenID provider issued a token, and issues the next one."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...] = ()
    audience: str = ""
    client_secret: str | None = field(default=None, repr=False)
    """The secret of the client credentials grant; None for a token of the device authorization grant."""


@dataclass(frozen=True, kw_only=True)
class StoredToken:
    """A token, and what it is for."""

    url: str
    """The registry that it may be sent to."""
    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    expire_time: float | None = None
    """When it expires, in seconds since 1970. None: never, or the issuer did not say."""
    grant: Grant | None = None
    """None: a fixed token."""

    @property
    def can_be_refreshed(self) -> bool:
        """Whether the issuer can be asked for the next token."""
        return self.grant is not None and (self.grant.client_secret is not None or self.refresh_token is not None)


class TokenStore:
    """The tokens of the profiles of a configuration directory.

    Args:
        directory: The directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, profile: str) -> Path:
        """Return the path of the file of a profile."""
        return self._directory / f"token.{profile}.json"

    @contextmanager
    def lock(self, profile: str) -> Iterator[None]:
        """Hold the lock of a profile's token, where there can be one: not in a read-only directory."""
        with _lock_if_possible(self._directory / f"token.{profile}.lock"):
            yield

    def read(self, profile: str) -> StoredToken | None:
        """Return the token of a profile, or None if there is none.

        Raises:
            InvalidArgument: The file is damaged, or the keyring does not answer.
        """
        path = self.path(profile)
        content = read_small_file(path)
        if content is None:
            return None
        _warn_if_others_can_read(path)
        document = _load(path, content)
        if document.get("keyring") is True:
            return self._read_keyring(profile, path)
        return _decode(path, document)

    def write(self, profile: str, token: StoredToken) -> bool:
        """Keep the token of a profile. Return whether it is in the keyring.

        Raises:
            OSError: The file cannot be written.
        """
        make_private_directory(self._directory)
        document: dict[str, Any] = {"version": _VERSION, **dataclasses.asdict(token)}
        text = json.dumps(document)
        in_keyring = _write_keyring(self._user(profile), text)
        # The file says where to look, so that no keyring is asked, and unlocked, for a token that is not there.
        content = json.dumps({"version": _VERSION, "keyring": True}) if in_keyring else text
        write_private_file(self.path(profile), content.encode() + b"\n")
        return in_keyring

    def delete(self, profile: str) -> None:
        """Delete the token of a profile, if there is one.

        Raises:
            OSError: The file cannot be removed.
        """
        path = self.path(profile)
        # Without the lock, a process that refreshes the token could write it again. The file of the lock stays.
        with self.lock(profile):
            content = read_small_file(path)
            if content is not None and b'"keyring"' in content:
                _delete_keyring(self._user(profile))
            path.unlink(missing_ok=True)

    def _read_keyring(self, profile: str, path: Path) -> StoredToken | None:
        try:
            import keyring  # noqa: PLC0415 - optional, and slow to import

            text = keyring.get_password(_SERVICE, self._user(profile))
        except Exception as error:  # noqa: BLE001 - backends raise errors of their own
            raise InvalidArgument(
                f"The token of the profile {profile!r} is in the keyring, which does not return it ({error}). Unlock "
                "the keyring, or sign in again with `mreg login`."
            ) from None
        return None if text is None else _decode(path, _load(path, text.encode()))

    def _user(self, profile: str) -> str:
        # Two configuration directories may have profiles of the same name.
        return f"{profile}@{self._directory}"


@contextmanager
def _lock_if_possible(path: Path) -> Iterator[None]:
    lock = lock_file(path)
    try:
        lock.__enter__()
    except (OSError, NotImplementedError) as error:
        logger.debug("%s: no lock (%s)", path, error)
        yield
        return
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _load(path: Path, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _damaged(path, "no JSON object")
    if document.get("version") != _VERSION:
        raise InvalidArgument(
            f"{path} has the format {document.get('version')!r} of another version of modelreg. Upgrade modelreg, or "
            "sign in again with `mreg login`."
        )
    return document


def _decode(path: Path, document: dict[str, Any]) -> StoredToken:
    """Make a token of its document. Errors never show a value, which might be the token."""
    grant = document.get("grant")
    if not isinstance(grant, (dict, type(None))):
        raise _damaged(path, "grant")
    return StoredToken(
        url=_text(path, document, "url"),
        access_token=_text(path, document, "access_token"),
        refresh_token=_text(path, document, "refresh_token", optional=True),
        expire_time=_number(path, document, "expire_time"),
        grant=None
        if grant is None
        else Grant(
            issuer=_text(path, grant, "issuer"),
            client_id=_text(path, grant, "client_id"),
            scopes=_texts(path, grant, "scopes"),
            audience=_text(path, grant, "audience", optional=True) or "",
            client_secret=_text(path, grant, "client_secret", optional=True),
        ),
    )


def _text(path: Path, document: dict[str, Any], key: str, *, optional: bool = False) -> Any:
    value = document.get(key)
    if not isinstance(value, str) and not (optional and value is None):
        raise _damaged(path, key)
    return value


def _texts(path: Path, document: dict[str, Any], key: str) -> tuple[str, ...]:
    values = document.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _damaged(path, key)
    return tuple(values)


def _number(path: Path, document: dict[str, Any], key: str) -> float | None:
    value = document.get(key)
    if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
        raise _damaged(path, key)
    return value


def _damaged(path: Path, problem: str) -> InvalidArgument:
    return InvalidArgument(f"{path} is damaged ({problem}). Sign in again with `mreg login`.")


def _warn_if_others_can_read(path: Path) -> None:
    if os.name == "nt":
        return
    with suppress(OSError):
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            logger.warning("Others can read the token in %s: chmod 600 it, and revoke the token.", path)


def _write_keyring(user: str, text: str) -> bool:
    """Keep a text in the keyring, if there is one. Return whether it is there."""
    try:
        import keyring  # noqa: PLC0415 - optional, and slow to import
        import keyring.core  # noqa: PLC0415

        if not keyring.core.recommended(keyring.get_keyring()):
            return False
        keyring.set_password(_SERVICE, user, text)
    except ImportError:
        return False
    except Exception as error:  # noqa: BLE001 - backends raise errors of their own, for example for a long token
        logger.debug("the keyring did not take the token: %s", error)
        return False
    return True


def _delete_keyring(user: str) -> None:
    # A keyring that is gone, or locked, does not keep a profile from being removed.
    try:
        import keyring  # noqa: PLC0415 - optional, and slow to import

        keyring.delete_password(_SERVICE, user)
    except Exception as error:  # noqa: BLE001 - backends raise errors of their own
        logger.warning("The keyring still has the token of %s: %s", user, error)
