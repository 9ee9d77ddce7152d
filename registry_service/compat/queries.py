"""The query of GET /models: six filters, and their validation."""

from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from registry_service.compat import answers
from registry_service.compat.answers import RestError
from registry_service.domain.filter import And, Comparator, Field, Kind, Node, Or, Pattern, Restriction

_MAX_KEYS = 1000
_BAD_CHARACTERS = "<%'"


def _contains(name: str) -> Callable[[str], Node]:
    """Match a substring literally, ignoring case. An empty value matches every model that has the field."""
    field = Field((name,), Kind.TEXT)

    def node(value: str) -> Node:
        return Restriction(field, Comparator.CONTAINS, Pattern((value,)))

    return node


def _precision(value: str) -> Node:
    # Precisions are stored in lower case. Each one is compared, and also the texts that this API shows instead.
    pattern = Pattern(("", value.lower(), "") if value else ("", ""))
    return Or(
        tuple(
            Restriction(Field((name,), Kind.LIST), Comparator.CONTAINS, pattern)
            for name in ("precisions", "compat_precision")
        )
    )


def _version(value: str) -> Node:
    # No version is empty, so an empty value matches no model.
    return Restriction(Field(("version",), Kind.TEXT), Comparator.EQUAL, Pattern((value,)))


_FILTERS: Mapping[str, Callable[[str], Node]] = {
    "name": _contains("name"),
    "project_name": _contains("project_name"),
    "category": _contains("category"),
    "architecture": _contains("architecture"),
    "precision": _precision,
    "version": _version,
}


class ModelQuery:
    """The filters of a query."""

    def __init__(self, filters: Mapping[str, str]) -> None:
        self._filters = filters

    @property
    def must_match(self) -> bool:
        """Whether it is an error if no model matches. It is not if there are no filters, or only empty ones."""
        return any(self._filters.values())

    @property
    def node(self) -> Node | None:
        """The filter; None for all models."""
        nodes = [_FILTERS[name](value) for name, value in self._filters.items()]
        return And(tuple(nodes)) if len(nodes) > 1 else (nodes[0] if nodes else None)


def query_of(path: str) -> ModelQuery:
    """Parse the query in a path of a URL.

    Raises:
        RestError: 422 for an unknown key or a NUL, 400 for another character that is not allowed.
    """
    _, _, query = path.partition("?")
    try:
        # Bytes that are not UTF-8 become U+FFFD.
        pairs = parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=_MAX_KEYS)
    except ValueError:
        raise RestError(answers.text(422, "Too many query parameters.\n")) from None
    unknown = list(dict.fromkeys(key for key, _ in pairs if key not in _FILTERS))
    if unknown:
        raise RestError(answers.text(422, f"Invalid query parameter(s): {', '.join(unknown)}\n"))
    filters = dict(pairs)  # of a repeated key, the last value counts
    for name, value in filters.items():
        if any(character in value for character in _BAD_CHARACTERS):
            message = f"The value provided for '{name}' must not contain special characters like <, %, '."
            raise RestError(answers.text(400, message))
        if "\0" in value:
            raise RestError(answers.text(422, f"The value provided for '{name}' must not contain a NUL character.\n"))
    return ModelQuery(filters)
