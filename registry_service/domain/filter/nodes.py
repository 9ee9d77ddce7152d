"""The tree of a filter: typed nodes, with all names resolved and all values checked."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

MAX_LENGTH = 8_192
"""Maximum number of characters of a filter."""
MAX_DEPTH = 32
"""Maximum nesting of parentheses, and maximum number of names in one path."""
MAX_RESTRICTIONS = 100
"""Maximum number of restrictions of a filter."""


class Kind(Enum):
    """The type of a field, which decides how the field compares."""

    TEXT = "a text"
    INTEGER = "an integer"
    NUMBER = "a number"
    TIME = "a time"
    LIST = "a list"
    """Texts, or objects that compare by their name (data sets also by their digest)."""
    ELEMENT = "a text of each element of a list"
    """The last name of the path is a field of the objects in the list that the other names lead to."""
    MAP = "a map"
    OBJECT = "an object"
    JSON = "JSON"
    """Any JSON value."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the subject, or a value inside a field."""

    path: tuple[str, ...]
    """The name of the field, then names and keys inside it. Fields of the artifact have their last name only."""
    kind: Kind
    is_key: bool = False
    """Whether the last name of the path is a key of a map or of JSON rather than a declared field."""


class Comparator(Enum):
    """How a restriction compares. `!=` is NOT with EQUAL."""

    EQUAL = "="
    """On LIST and ELEMENT: one element is equal."""
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="
    CONTAINS = ":"
    """TEXT and ELEMENT: contains the value, ignoring case. JSON: also has the element or the key."""
    PRESENT = ":*"
    """Is present, as the package defines it. Takes no value."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text with wildcards: the parts in order, with any text between them."""

    parts: tuple[str, ...]
    """At least one; exactly one if there is no wildcard. Only the first and the last may be empty."""

    @property
    def literal(self) -> str | None:
        """The text, or None if there is a wildcard."""
        return self.parts[0] if len(self.parts) == 1 else None

    @property
    def is_any(self) -> bool:
        """Whether the pattern is a single wildcard."""
        return self.parts == ("", "")


Value = Pattern | bool | int | float | datetime | None
"""TEXT, LIST, ELEMENT: Pattern. INTEGER: int in 64 bits. NUMBER: finite float. TIME: aware datetime in UTC.
JSON: Pattern, bool, int in 64 bits or finite float. PRESENT: None."""


@dataclass(frozen=True, slots=True)
class Restriction:
    """One comparison of one field. False if the field is absent."""

    field: Field
    comparator: Comparator
    value: Value = None
    """Has no wildcard if the comparator is an order."""


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more nodes."""

    children: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of two or more nodes."""

    children: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The exact opposite of a node that is not itself a Not."""

    child: "Node"


Node = And | Or | Not | Restriction


def negated(node: Node) -> Node:
    """Return the exact opposite of a node."""
    return node.child if isinstance(node, Not) else Not(node)
