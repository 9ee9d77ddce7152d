"""Bearer tokens that expire: those of OpenID providers."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable

from modelreg._access.oidc import Issuer
from modelreg._access.token_store import Grant, StoredToken, TokenStore
from modelreg._logging import logger
from modelreg.errors import InvalidArgument, Unauthenticated, Unavailable

REFRESH_SECONDS = 60.0
"""How long before it expires a token is replaced."""
_PAUSE_SECONDS = 15.0
"""How long an issuer is left alone after a refresh that failed, while the token is still good."""


class RefreshedToken:
    """A token that is replaced before it expires. Threads wait for one another's refresh.

    Args:
        ca_file: PEM file with authorities to trust at the issuer, in addition to those of the system.
    """

    note = ""
    may_block = True

    def __init__(self, ca_file: str | None) -> None:
        self._ca_file = ca_file
        self._mutex = threading.Lock()
        _INSTANCES.add(self)
        self._current: StoredToken | None = None
        self._next_attempt = 0.0

    def token(self) -> str | None:
        """See `Credentials`."""
        with self._mutex:
            current = self._current
            if current is None or self._is_due(current):
                current = self._current = self._replace(lambda found: not self._is_due(found))
            return current.access_token

    def refresh(self, refused: str) -> bool:
        """See `Credentials`."""
        with self._mutex:
            if self._current is not None and self._current.access_token != refused:
                return True
            try:
                self._current = self._replace(lambda found: found.access_token != refused)
            except Unauthenticated as error:
                # The server says better why the token was refused.
                logger.debug("%s", error)
                return False
            return self._current.access_token != refused

    def _is_due(self, token: StoredToken) -> bool:
        """Tell whether a token must be replaced, or should be and can be."""
        if token.expire_time is None:
            return False
        seconds = token.expire_time - time.time()
        may_try = token.can_be_refreshed and time.monotonic() >= self._next_attempt
        return seconds <= 0 or (seconds < REFRESH_SECONDS and may_try)

    def _replace(self, is_good: Callable[[StoredToken], bool]) -> StoredToken:
        """Return a token for which `is_good` is true, or the old one if there is no other, but it has not expired.

        Raises:
            Unauthenticated: There is none.
            Unavailable: The issuer cannot be reached.
        """
        raise NotImplementedError

    def _issue(self, current: StoredToken) -> StoredToken:
        """Have the issuer replace a token."""
        grant = current.grant
        if grant is None or not current.can_be_refreshed:
            raise Unauthenticated("The token expired, or was refused, and cannot be refreshed.")
        try:
            return Issuer(grant.issuer, self._ca_file).refresh(current)
        except (Unavailable, Unauthenticated) as error:
            # While the issuer is away, or refuses, a token is good until it expires.
            if current.expire_time is None or current.expire_time <= time.time():
                raise
            logger.warning("A token that expires soon could not be refreshed: %s", error)
            self._next_attempt = time.monotonic() + _PAUSE_SECONDS
            return current


_INSTANCES: weakref.WeakSet[RefreshedToken] = weakref.WeakSet()


def _renew_mutexes() -> None:
    """Replace the mutexes, which threads of the parent may have held when this process was forked."""
    for instance in _INSTANCES:
        instance._mutex = threading.Lock()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_mutexes)


class ClientCredentials(RefreshedToken):
    """Tokens for this client itself, by its secret. They are kept in memory only.

    Args:
        grant: The issuer, the client and its secret.
        url: The registry.
        ca_file: PEM file with authorities to trust at the issuer, in addition to those of the system.
    """

    def __init__(self, grant: Grant, url: str, ca_file: str | None) -> None:
        super().__init__(ca_file)
        self._grant = grant
        self._url = url

    def _replace(self, is_good: Callable[[StoredToken], bool]) -> StoredToken:
        del is_good
        if self._current is None:
            return Issuer(self._grant.issuer, self._ca_file).client_credentials(self._grant, self._url)
        return self._issue(self._current)


class ProfileToken(RefreshedToken):
    """The token of a profile. It is refreshed once for all processes.

    Args:
        store: Where the token is kept.
        profile: The name of the profile.
        url: The registry.
        ca_file: PEM file with authorities to trust at the issuer, in addition to those of the system.
    """

    def __init__(self, store: TokenStore, profile: str, url: str, ca_file: str | None) -> None:
        super().__init__(ca_file)
        self._store = store
        self._profile = profile
        self._url = url

    def _replace(self, is_good: Callable[[StoredToken], bool]) -> StoredToken:
        current = self._load()
        # Most often nothing is due, so neither a lock nor a writable directory is needed.
        if is_good(current):
            return current
        if not current.can_be_refreshed:
            raise Unauthenticated(
                f"The token of the profile {self._profile!r} expired, or was refused. {self._sign_in_again}"
            )
        with self._store.lock(self._profile):
            # Meanwhile, another process may have refreshed the token, or signed out.
            current = self._load()
            if is_good(current):
                return current
            replacement = self._issue(current)
            if replacement is not current:
                self._keep(replacement)
            return replacement

    @property
    def _sign_in_again(self) -> str:
        return f"Sign in again: mreg login {self._url} --profile {self._profile}"

    def _load(self) -> StoredToken:
        stored = self._store.read(self._profile)
        if stored is None:
            raise Unauthenticated(f"The profile {self._profile!r} is signed out. {self._sign_in_again}")
        if stored.url != self._url:
            # Somebody changed the URL in the file of profiles.
            raise InvalidArgument(
                f"The token of the profile {self._profile!r} is for {stored.url}, not for {self._url}. "
                f"{self._sign_in_again}"
            )
        return stored

    def _keep(self, token: StoredToken) -> None:
        try:
            self._store.write(self._profile, token)
        except OSError as error:
            # This process goes on with the token. The next one refreshes it itself, if the issuer lets it.
            logger.warning("The refreshed token of the profile %r could not be stored: %s", self._profile, error)
