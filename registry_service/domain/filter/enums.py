"""Fields with a fixed set of values: as stored, and as the API shows them."""

import difflib
import re
from dataclasses import dataclass

from registry_service.domain.filter.lexer import shown
from registry_service.domain.filter.nodes import Comparator, Field, Pattern
from registry_service.domain.models import ArtifactKind
from registry_service.domain.vocabulary import Action, MetricGoal


@dataclass(frozen=True, slots=True)
class EnumValues:
    """The values of an enum."""

    prefix: str
    """Prefix of the names in the API."""
    values: tuple[str, ...]
    """As stored."""

    def names(self) -> tuple[str, ...]:
        """Return the values as the API shows them: alias.rolled_back is `ACTION_ALIAS_ROLLED_BACK`."""
        return tuple(self.prefix + value.replace(".", "_").upper() for value in self.values)

    def stored(self, pattern: Pattern, comparator: Comparator) -> Pattern | None:
        """Return the pattern for stored values, or None if no value matches."""
        if not pattern.parts[0].startswith(self.prefix):
            return pattern if self._has(pattern, comparator) else None
        # No text has a NUL, so it can stand for the wildcards.
        name = "\0".join(pattern.parts).removeprefix(self.prefix).lower()
        if len(name) > 2 * max(map(len, self.values)) + 1:  # longer than with a wildcard around every character
            return None
        # Any one underscore may stand for the dot. Earlier ones come first: ACTION_MODEL_* is model.*.
        dots = [position for position, character in enumerate(name) if character == "_"]
        texts = [*(f"{name[:dot]}.{name[dot + 1 :]}" for dot in dots), name]
        forms = [Pattern(tuple(text.split("\0"))) for text in texts]
        return next((form for form in forms if self._has(form, comparator)), None)

    def nearest(self, pattern: Pattern, comparator: Comparator) -> str | None:
        """Return the most similar value, as the API shows it."""
        parts = [re.sub(r"[\s.-]", "_", part).upper() for part in pattern.parts]
        parts[0] = parts[0].removeprefix(self.prefix)
        named = Pattern((self.prefix + parts[0], *parts[1:]))
        if any(parts) and self.stored(named, comparator) is not None:
            return "*".join(named.parts)
        names = [name.removeprefix(self.prefix) for name in self.names()]
        nearest = difflib.get_close_matches(shown(parts[0]), names, n=1) if len(parts) == 1 else []
        return self.prefix + nearest[0] if nearest else None

    def _has(self, pattern: Pattern, comparator: Comparator) -> bool:
        if comparator is Comparator.CONTAINS:
            pattern = Pattern(("", *(part.lower() for part in pattern.parts), ""))
        return any(_matches(pattern, value) for value in self.values)


def _matches(pattern: Pattern, text: str) -> bool:
    if pattern.literal is not None:
        return pattern.literal == text
    first, *middle, last = pattern.parts
    if not text.startswith(first) or not text[len(first) :].endswith(last):
        return False
    rest = text[len(first) : len(text) - len(last)]
    for part in middle:
        _, found, rest = rest.partition(part) if part else ("", "*", rest)
        if not found:
            return False
    return True


_ARTIFACT_KIND = EnumValues("KIND_", tuple(ArtifactKind))
_ACTION = EnumValues("ACTION_", tuple(action for action in Action if action is not Action.UNKNOWN))
_METRIC_GOAL = EnumValues("METRIC_GOAL_", tuple(MetricGoal))


def enum_of(field: Field) -> EnumValues | None:
    """Return the values of a field with a fixed set of values, None for other fields."""
    match field.path:
        case ("artifact_kind",):
            return _ARTIFACT_KIND
        case ("action",):
            return _ACTION
        case ("metric_goals", _):
            return _METRIC_GOAL
    return None
