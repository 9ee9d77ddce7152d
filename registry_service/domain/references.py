"""References: readable names of models, such as `acme/vad@production`.

The grammar, the same for server, client and UI (tests/vectors/references.json has vectors for all of them):

    reference := model_id | [ project "/" ] name [ ":" version | "@" alias ]
    project   := model_group_id | project_id | project_name

Without a version and an alias, a reference means the latest version. `@latest` says so explicitly, and shows that the
word before it is not a model id. An empty project (`/name`) means no project. The registry assigns the ids of model
groups, so a reference with the id of the group before the name is unambiguous. Reserved characters inside a part are
percent-encoded as in a URL (RFC 3986), and decoded once. Texts are compared by code points, without Unicode
normalization.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from registry_service.domain.access import Projects
from registry_service.domain.aliases import checked_alias
from registry_service.domain.errors import InvalidArgumentError, InvalidReferenceError
from registry_service.domain.model_groups import GroupHandle
from registry_service.domain.models import GroupKey, ModelFields
from registry_service.domain.validation import is_model_id

LATEST = "latest"
"""Reserved: no alias has this name (`domain.aliases.checked_alias`)."""

MAX_CHARACTERS = 65_536
"""Maximum length. Three parts of 5,000 percent-encoded characters have 45,002."""

_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_RESERVED = "/:@"
_UNSAFE = re.compile(r"[\x00-\x20%/:@\x7f]")
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference, decoded."""

    project: str | None = None
    """The id of the model group, or the id or name of its project. Empty: no project. None: any project or none."""
    name: str
    version: str | None = None
    alias: str | None = None
    """At most one of version and alias is set. Without both, the latest version is meant."""
    model_id: str | None = None
    """The text of `name` if it can also be a model id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedVersion:
    """A model that a reference may name."""

    model_id: str
    version: str
    precisions: tuple[str, ...]


class ReferenceRepository(Protocol):
    """Finds the resources that references name."""

    def groups(self, name: str, project: str | None, *, limit: int, within: Projects = None) -> Sequence[GroupHandle]:
        """Return the groups with this name that have models, at most `limit`, by id.

        Args:
            name: The exact name.
            project: The first of these that exists: the id of a group with this name, the id of their project, the name
                of their project. Empty: groups without a project. None: any project or none.
            limit: Maximum number of groups.
            within: Only groups of these projects count.
        """

    def has_project(self, project: str, *, within: Projects = None) -> bool:
        """Tell whether any group has a project of this id or name."""

    def versions(
        self, group: GroupHandle, version: str | None, precisions: Collection[str], *, limit: int
    ) -> Sequence[NamedVersion]:
        """Return the models of one version of a group, newest first, at most `limit`.

        Args:
            group: The group.
            version: The version; None: the latest release, or the latest pre-release of a group without releases.
            precisions: Only models with exactly these precisions, in any order. Empty: all models.
            limit: Maximum number of models.
        """


def parse_reference(text: str) -> Reference:
    """Parse a reference.

    Raises:
        InvalidReferenceError: The text is not a reference. The position is that of the first wrong character, from 1,
            or the length of the text plus 1 if it ends too early.
    """
    if len(text) > MAX_CHARACTERS:
        # Parsing goes character by character, and megabytes would take seconds.
        raise InvalidReferenceError(f"A reference has at most {MAX_CHARACTERS} characters", MAX_CHARACTERS + 1)
    project, slash, rest = text.partition("/") if "/" in text else ("", "", text)
    start = len(project) + len(slash)
    cut = next((place for place, character in enumerate(rest) if character in ":@"), len(rest))
    separator, selector = rest[cut : cut + 1], rest[cut + 1 :]
    decoded_project = _decoded(project, 0, "project") if slash else None
    name = _decoded(rest[:cut], start, "name")
    if not name:
        raise InvalidReferenceError("The name is empty", start + 1)
    if not separator:
        is_id = not slash and is_model_id(text)
        return Reference(project=decoded_project, name=name, model_id=text if is_id else None)
    selector_start = start + cut + 1
    kind = "version" if separator == ":" else "alias"
    decoded = _decoded(selector, selector_start, kind)
    if not decoded:
        raise InvalidReferenceError(f"The {kind} is empty", selector_start + 1)
    if separator == ":":
        return Reference(project=decoded_project, name=name, version=decoded)
    if decoded == LATEST:
        return Reference(project=decoded_project, name=name)
    try:
        alias = checked_alias(decoded)
    except InvalidArgumentError as error:
        description = error.violations[0].description.rstrip(".")
        raise InvalidReferenceError(f"The alias {description}", selector_start + 1) from None
    return Reference(project=decoded_project, name=name, alias=alias)


def format_reference(
    name: str, *, project: str | None = None, version: str | None = None, alias: str | None = None
) -> str:
    """Return the reference that `parse_reference` parses to these parts.

    Args:
        name: The name of the model group.
        project: The id of the group, or the id or name of its project. Empty: no project. None: unspecified.
        version: The version, unless an alias is given.
        alias: The alias, or `LATEST` for the latest version of a group whose name looks like a model id.
    """
    prefix = "" if project is None else f"{_encoded(project)}/"
    if version is not None:
        return f"{prefix}{_encoded(name)}:{_encoded(version)}"
    return f"{prefix}{_encoded(name)}{'' if alias is None else f'@{alias}'}"


def shown_version(key: GroupKey, version: str) -> str:
    """Return the reference to a version of a group for an error message, cut if it is long."""
    reference = format_reference(key.name, project=key.project_id or key.project_name, version=version)
    return reference if len(reference) <= _SHOWN_CHARACTERS else f"{reference[: _SHOWN_CHARACTERS - 1]}…"


def shown_model(model: ModelFields) -> str:
    """Return the reference to a model for an error message, cut if it is long."""
    return shown_version(GroupKey.of(model), model.version)


def _encoded(part: str) -> str:
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", part)


def _decoded(part: str, start: int, kind: str) -> str:
    """Decode a part that begins after `start` characters of the reference."""
    decoded = bytearray()
    places: list[int] = []  # of each byte
    place = 0
    while place < len(part):
        character = part[place]
        length = 1
        if character == "%":
            if not _ESCAPE.match(part, place):
                raise InvalidReferenceError(
                    "% must be followed by two hexadecimal digits (% itself is %25)", start + place + 1
                )
            found = bytes([int(part[place + 1 : place + 3], 16)])
            length = 3
        elif character in _RESERVED:
            raise InvalidReferenceError(
                f"{character} in the {kind} must be written as %{ord(character):02X}", start + place + 1
            )
        elif character == " ":
            raise InvalidReferenceError(
                "A space must be written as %20; in the query of a URL, + is a space, and %2B is a +", start + place + 1
            )
        elif character < " " or character == "\x7f":
            raise InvalidReferenceError(
                f"The control character U+{ord(character):04X} must be percent-encoded", start + place + 1
            )
        else:
            found = character.encode(errors="surrogatepass")
        if found == b"\0":
            raise InvalidReferenceError(f"The {kind} must not contain NUL", start + place + 1)
        decoded += found
        places += [place] * len(found)
        place += length
    try:
        return decoded.decode()
    except UnicodeDecodeError as error:
        raise InvalidReferenceError(f"The {kind} is not UTF-8", start + places[error.start] + 1) from None
