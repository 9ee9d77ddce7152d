"""References: readable names of models, such as `acme/vad@production`.

The grammar, the same as the server's (tests/vectors/references.json has vectors for both):

    reference := model_id | [ project "/" ] name [ ":" version | "@" alias ]

Without a version and an alias, a reference means the latest version; `@latest` says so explicitly. An empty project
(`/name`) means no project. Reserved characters inside a part are percent-encoded as in a URL (RFC 3986).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from modelreg import _arguments
from modelreg.errors import InvalidArgument

LATEST = "latest"
MAX_CHARACTERS = 65_536

_MODEL_ID = re.compile(r"[A-Za-z0-9_-]{16,256}")
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ALIAS_RULE = "An alias has 1 to 128 characters of A-Z a-z 0-9 . _ - and begins with a letter or a digit"
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
    text = _arguments.text(text, "reference")
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
    if decoded.lower() == LATEST:
        raise _invalid(f"The word for the latest version is {LATEST}, in lower case, not {decoded}", selector_start)
    if not _ALIAS.fullmatch(decoded):
        raise _invalid(_ALIAS_RULE, selector_start)
    return Reference(project=decoded_project, name=name, alias=decoded)


def parse_alias(text: str, *, needs_name: bool = True) -> Reference:
    """Parse `[project/]name@alias`, the name of an alias.

    Args:
        text: The text.
        needs_name: Whether the word of the alias alone is refused. If it is not, its reference has an empty name.

    Raises:
        InvalidArgument: The text names no alias.

    >>> parse_alias("acme/vad@production").alias
    'production'
    """
    text = _arguments.text(text, "alias", advice="Write name@alias, for example vad@production.")
    _, separator, word = text.rpartition("@")
    if word.lower() == LATEST:
        raise _latest(text)
    if separator:
        parsed = parse_reference(text)
        if parsed.alias is None:  # The word has escapes.
            raise _latest(text)
        return parsed
    if needs_name:
        raise InvalidArgument(f"{text!r} names no alias. Write name@alias, for example vad@production.")
    if not _ALIAS.fullmatch(text):
        raise InvalidArgument(f"alias: {text!r:.200} is no alias. {_ALIAS_RULE}.")
    return Reference(name="", alias=text)


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


def confusion(name: str, version: str) -> str:
    """Return a warning of a name of a new model that people take for a reference; empty if it is none.

    Such a name is valid, and other clients register it, so it is not refused.
    """
    try:
        parsed = parse_reference(name)
    except InvalidArgument:
        return ""
    if parsed.project is None and parsed.version is None and parsed.alias is None:
        return ""
    meant = {"name": parsed.name, "version": parsed.version or version, "project_id": parsed.project}
    arguments = ", ".join(f"{key}={value!r}" for key, value in meant.items() if value)
    target = format_reference(parsed.name, project=parsed.project, version=meant["version"])
    alias = "" if parsed.alias is None else f" Then promote it to {parsed.alias}."
    return (
        f"The name {name!r} is not a reference: the model will be {format_reference(name, version=version)}. For the "
        f"model {target}, pass {arguments}.{alias}"
    )


def group_reference(metadata: Mapping[str, str]) -> str:
    """Return the reference of the model group that an error is about, from its metadata. Empty if they do not say."""
    try:
        parsed = Reference(name=metadata["name"]) if "name" in metadata else parse_reference(metadata["reference"])
    except (InvalidArgument, KeyError):
        return ""
    return format_reference(parsed.name, project=parsed.project)


def _latest(text: str) -> InvalidArgument:
    return InvalidArgument(
        f"alias: {text} cannot be set or moved: {LATEST} always means the latest version. Choose another alias, for "
        f"example {text.rpartition('@')[0] + '@' if '@' in text else ''}production."
    )


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
