"""The profiles of `mreg login`: registries by name, in `profiles.json` of the configuration directory.

The file holds no secrets. The token of a profile is kept apart: see `modelreg._access.token_store`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from modelreg import directories
from modelreg._access.token_store import TokenStore
from modelreg._files import lock_file, make_private_directory, read_small_file, write_private_file
from modelreg._results import Result
from modelreg.errors import InvalidArgument, NotFound
from modelreg.urls import Endpoint, parse_url

SignIn = Literal["none", "token", "device", "client_credentials"]
"""How a profile signs in: not at all, with a fixed token, or with one of these grants of an OpenID provider."""

_FILE = "profiles.json"
_VERSION = 1
_TEXTS = ("ca_file", "client_certificate", "client_key", "subject", "issuer", "audience")
# The name becomes part of a file's name on any file system. Lower case, because some do not tell the cases apart.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Profile(Result):
    """A registry, and how it is reached."""

    name: str
    url: str
    """The whole URL, the same for all spellings."""
    ca_file: str | None = None
    """PEM file with the certificate authorities to trust."""
    client_certificate: str | None = None
    """PEM file with the certificate chain of the client."""
    client_key: str | None = None
    """PEM file with its private key."""
    insecure: bool = False
    """Whether the token may be sent without TLS to another machine."""
    sign_in: SignIn = "none"
    subject: str = ""
    """Who signed in, when that was asked last."""
    issuer: str = ""
    """The OpenID provider of the token. Empty for a fixed token."""
    audience: str = ""
    """The audience of the provider's tokens. Empty if the registry names none."""

    @property
    def endpoint(self) -> Endpoint:
        """Where the registry answers."""
        return parse_url(self.url)


class Profiles:
    """The profiles of a configuration directory.

    Every change is made under a file lock, and replaces the file atomically.

    Args:
        directory: The directory. Default: that of `modelreg.directories`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directories.configuration_directory() if directory is None else directory
        self.tokens = TokenStore(self.directory)

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / _FILE

    def __iter__(self) -> Iterator[Profile]:
        return iter(self._read().profiles.values())

    def get(self, name: str) -> Profile:
        """Return a profile.

        Raises:
            NotFound: There is no such profile.
            InvalidArgument: The file is damaged.
        """
        profiles = self._read().profiles
        if name not in profiles:
            known = ", ".join(profiles) or "none"
            raise NotFound(
                f"There is no profile {name!r}. Known: {known}.",
                hint="`mreg profile ls` lists the profiles, and `mreg login` makes one.",
            )
        return profiles[name]

    def active(self) -> Profile | None:
        """Return the profile that is used where nothing else says which registry to use.

        Raises:
            InvalidArgument: The file is damaged.
        """
        content = self._read()
        return content.profiles.get(content.active)

    def find(self, endpoint: Endpoint) -> Profile | None:
        """Return the profile of a URL, or None. If there are several: the active one of them.

        Raises:
            InvalidArgument: There are several, and none of them is active. Or the file is damaged.
        """
        content = self._read()
        found = [profile for profile in content.profiles.values() if profile.url == endpoint.url]
        if len(found) > 1:
            active = [profile for profile in found if profile.name == content.active]
            if not active:
                names = ", ".join(profile.name for profile in found)
                raise InvalidArgument(
                    f"Several profiles are for {endpoint.url}: {names}. Choose one with `profile`, with "
                    "MODELREG_PROFILE, or with `mreg profile use`."
                )
            return active[0]
        return found[0] if found else None

    def save(self, profile: Profile, *, activate: bool = True) -> None:
        """Add a profile, or replace that of its name.

        Raises:
            InvalidArgument: The name or the URL is invalid, or the file is damaged.
            OSError: The file cannot be written.
        """
        check_name(profile.name)
        profile = dataclasses.replace(profile, url=profile.endpoint.url)

        def change(content: _Content) -> None:
            content.profiles[profile.name] = profile
            if activate:
                content.active = profile.name

        self._change(change)

    def use(self, name: str) -> Profile:
        """Make a profile the active one.

        Raises:
            NotFound: There is no such profile.
            InvalidArgument: The file is damaged.
            OSError: The file cannot be written.
        """
        profile = self.get(name)

        def change(content: _Content) -> None:
            content.active = name

        self._change(change)
        return profile

    def remove(self, name: str) -> None:
        """Remove a profile with its token.

        Raises:
            NotFound: There is no such profile.
            InvalidArgument: The file is damaged.
            OSError: A file cannot be written or removed.
        """
        self.get(name)
        # First the secret: if that fails, the profile still shows that it is there.
        self.tokens.delete(name)

        def change(content: _Content) -> None:
            content.profiles.pop(name, None)
            if content.active == name:
                content.active = ""

        self._change(change)

    def _change(self, change: Callable[[_Content], None]) -> None:
        make_private_directory(self.directory)
        with lock_file(self.directory / f"{_FILE}.lock"):
            content = self._read()
            change(content)
            write_private_file(self.path, content.encode())

    def _read(self) -> _Content:
        content = read_small_file(self.path)
        return _Content({}, "") if content is None else _decode(self.path, content)


@dataclass
class _Content:
    profiles: dict[str, Profile]
    active: str

    def encode(self) -> bytes:
        profiles = {}
        for name, profile in sorted(self.profiles.items()):
            values = {
                key: value for key, value in dataclasses.asdict(profile).items() if value not in (None, "", False)
            }
            profiles[name] = {key: value for key, value in values.items() if key != "name"}
        content = {"version": _VERSION, "active": self.active, "profiles": profiles}
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def check_name(name: str) -> None:
    """Check the name of a profile.

    Raises:
        InvalidArgument: The name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"{name!r} is not the name of a profile: use at most 64 lower-case letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit."
        )


def _decode(path: Path, content: bytes) -> _Content:
    try:
        document = json.loads(content)
        version = document["version"]
        if version == _VERSION:
            profiles = {name: _profile(name, values) for name, values in document["profiles"].items()}
            return _Content(profiles, _typed(document.get("active", ""), str))
    # What reading anything else as such a document raises; InvalidArgument is a ValueError.
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InvalidArgument(
            f"{path} is damaged: {problem}. Mend it, or remove it and sign in again with `mreg login`."
        ) from None
    raise InvalidArgument(
        f"{path} has the format {version!r} of another version of modelreg. Upgrade modelreg, or choose another "
        "directory with MODELREG_CONFIG."
    )


def _profile(name: str, values: Mapping[str, Any]) -> Profile:
    check_name(name)
    texts = {key: _typed(values[key], str) for key in _TEXTS if key in values}
    sign_in = values.get("sign_in", "none")
    if sign_in not in get_args(SignIn):
        raise ValueError(f"{name}: sign_in is none of {', '.join(get_args(SignIn))}")
    return Profile(
        name=name,
        url=parse_url(_typed(values["url"], str)).url,
        insecure=_typed(values.get("insecure", False), bool),
        sign_in=sign_in,
        **texts,
    )


def _typed(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected a {kind.__name__}, not {type(value).__name__}")
    return value
