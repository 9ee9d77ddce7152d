"""References: readable names of models, such as `acme/vad@production`.

The grammar, the same as the server's (tests/vectors/references.json has vectors for both):

    reference := model_id | [ project "/" ] name [ ":" version | "@" alias ]

Without a version and an alias, a reference means the latest version; `@latest` says so explicitly. An empty project
(`/name`) means no project. Reserved characters inside a part are percent-encoded as in a URL (RFC 3986).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelreg.errors import InvalidArgument

LATEST = "latest"
MAX_CHARACTERS = 65_536

_MODEL_ID = re.compile(r"[A-Za-z0-9_-]{16,256}")
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_RESERVED = "/:@"
_UNSAFE = re.compile(r"[\x00-\x20%/:@\x7f]")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference, decoded."""

    project: str | None = None
    """The id or the name of a project, or the id of the model group. Empty: no project. None: any."""
    name: str
    version: str | None = None
    alias: str | None = None
    """At most one of version and alias is set. Without both, the latest version is meant."""
    model_id: str | None = None
    """The text of `name` if it can also be the id of a model."""


def parse_reference(text: str) -> Reference:
    """Parse a reference.

    Raises:
        InvalidArgument: The text is not a reference. `position` is that of the first wrong character, from 1, or the
            length of the text plus 1 if it ends too early.

    >>> parse_reference("acme/vad@production")
    Reference(project='acme', name='vad', version=None, alias='production', model_id=None)
    """
    if len(text) > MAX_CHARACTERS:
        raise _invalid(f"A reference has at most {MAX_CHARACTERS} characters", MAX_CHARACTERS)
    head, slash, tail = text.partition("/")
    project, rest = (head, tail) if slash else ("", text)
    start = len(text) - len(rest)
    cut = next((index for index, character in enumerate(rest) if character in ":@"), len(rest))
    separator, selector = rest[cut : cut + 1], rest[cut + 1 :]
    decoded_project = _decoded(project, 0, "project") if slash else None
    name = _decoded(rest[:cut], start, "name")
    if not name:
        raise _invalid("The name is empty", start)
    if not separator:
        is_id = not slash and _MODEL_ID.fullmatch(text) is not None
        return Reference(project=decoded_project, name=name, model_id=text if is_id else None)
    selector_start = start + cut + 1
    kind = "version" if separator == ":" else "alias"
    decoded = _decoded(selector, selector_start, kind)
    if not decoded:
        raise _invalid(f"The {kind} is empty", selector_start)
    if separator == ":":
        return Reference(project=decoded_project, name=name, version=decoded)
    if decoded == LATEST:
        return Reference(project=decoded_project, name=name)
    if decoded.lower() == LATEST or not _ALIAS.fullmatch(decoded):
        raise _invalid(
            "An alias has 1 to 128 characters of A-Z a-z 0-9 . _ - and begins with a letter or a digit", selector_start
        )
    return Reference(project=decoded_project, name=name, alias=decoded)


def format_reference(
    name: str, *, project: str | None = None, version: str | None = None, alias: str | None = None
) -> str:
    """Return the reference that `parse_reference` parses to these parts.

    >>> format_reference("v/ad", project="acme", version="1.0")
    'acme/v%2Fad:1.0'
    """
    prefix = "" if project is None else f"{_encoded(project)}/"
    if version is not None:
        return f"{prefix}{_encoded(name)}:{_encoded(version)}"
    return f"{prefix}{_encoded(name)}{'' if alias is None else f'@{alias}'}"


def _invalid(message: str, index: int) -> InvalidArgument:
    error = InvalidArgument(f"{message} (position {index + 1} of the reference).", reason="INVALID_REFERENCE")
    error.position = index + 1
    return error


def _encoded(part: str) -> str:
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", part)


def _decoded(part: str, start: int, kind: str) -> str:
    """Decode a part that begins at an index of the reference."""
    decoded = bytearray()
    origins: list[int] = []  # of each byte
    index = 0
    while index < len(part):
        character = part[index]
        if fault := _fault(part, index, kind):
            raise _invalid(fault, start + index)
        is_escape = character == "%"
        found = bytes([int(part[index + 1 : index + 3], 16)]) if is_escape else character.encode(errors="surrogatepass")
        if found == b"\0":
            raise _invalid(f"The {kind} must not contain NUL", start + index)
        decoded += found
        origins += [index] * len(found)
        index += 3 if is_escape else 1
    try:
        return decoded.decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"The {kind} is not UTF-8", start + origins[error.start]) from None


def _fault(part: str, index: int, kind: str) -> str:
    """Return what is wrong with the character at an index of a part; empty if nothing is."""
    character = part[index]
    if character == "%":
        is_escape = _ESCAPE.match(part, index) is not None
        return "" if is_escape else "% must be followed by two hexadecimal digits (% itself is %25)"
    if character in _RESERVED:
        return f"{character} in the {kind} must be written as %{ord(character):02X}"
    if character == " ":
        return "A space must be written as %20"
    if character < " " or character == "\x7f":
        return f"The control character U+{ord(character):04X} must be percent-encoded"
    return ""
