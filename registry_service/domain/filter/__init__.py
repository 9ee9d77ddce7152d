r"""The filter language of AIP-160 (https://google.aip.dev/160) over the fields of a model, a model group or an event.

`parse` turns a text into a tree of typed nodes with all names resolved and all values checked. A storage only
translates the tree. The grammar is that of AIP-160. OR binds tighter than AND: `a AND b OR c` is `a AND (b OR c)`.
Two restrictions side by side are joined by AND.

The meaning of a restriction:

- A text is compared with exact case. `*` in the value stands for any text, and `\*` for the character. `:` asks
  whether the text contains the value, ignoring case. Texts are ordered by code points. Precisions are stored in
  lower case, so their values are compared in lower case.
- The value of an enum (an action, the kind of an artifact, the goal of a metric) is written as the API shows it
  (`ACTION_MODEL_UPDATED`, or `ACTION_MODEL_*`) or as it is stored (`model.updated`). A value that matches none of
  the enum is an error.
- On a list, `:` and `=` ask whether one element equals the value: a text, or an object with that name (for data
  sets, also with that digest).
- On a map, `:` asks whether the map has the key. `tags.team` is the value of a key; quote a key that is not a plain
  word: `tags."odd key"`.
- JSON is compared with a number, with `true` or `false`, or else with a text, as the value is written. A quoted
  value is a text. Values of other types never match. `:` asks whether a text contains the value, a list has it as
  an element, or an object has it as a key.
- A date without a time is midnight UTC. Fractions of a second count to the microsecond.
- `field:*` asks whether the field is present. An empty text, list or object is absent, as is a JSON null. A key of
  a map or of JSON is present even if its value is empty. `= null` and `!= null` mean the same.
- A bare word asks whether the name contains it. For an event, that is the name of the model.

Every restriction is true or false, never unknown. An absent value matches no restriction, and `NOT` and `!=` are
exact opposites: `format != "onnx"` and `NOT format = "onnx"` both match a model without a format.

Beyond AIP-160, a value may contain `:` and `.` without quotes (timestamps, digests), and NOT and `-` may be repeated.
Functions, and parentheses after a comparator, are not supported. Bare words that are more likely a mistake than a
search are errors: `and`, `or` and `not` in lower case, operators of other languages (`LIKE`, `IN`, `&&`, `~`), and
the name of a field without a comparator. Quote such a word to search for it.

The modules follow the text on its way: `lexer`, `parser`, `fields`, `values`, `nodes`.
"""

import re

from registry_service.domain.filter import lexer
from registry_service.domain.filter.fields import FIELDS, Subject
from registry_service.domain.filter.lexer import Lexeme, error
from registry_service.domain.filter.nodes import (
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_RESTRICTIONS,
    And,
    Comparator,
    Field,
    Kind,
    Node,
    Not,
    Or,
    Pattern,
    Restriction,
    Value,
)
from registry_service.domain.filter.parser import Parser

__all__ = [
    "MAX_DEPTH",
    "MAX_LENGTH",
    "MAX_RESTRICTIONS",
    "And",
    "Comparator",
    "Field",
    "Kind",
    "Node",
    "Not",
    "Or",
    "Pattern",
    "Restriction",
    "Subject",
    "Value",
    "parse",
    "with_field_renamed",
]


def parse(text: str, subject: Subject = Subject.MODEL) -> Node | None:
    """Parse a filter and check it against the fields of its subject.

    Args:
        text: The filter, in the language that the package describes.
        subject: The resource that the filter selects.

    Returns:
        The root of the tree, or None for a blank filter, which matches everything. Depth and size are within MAX_DEPTH
        and MAX_RESTRICTIONS. No text in the tree contains NUL or half a surrogate pair.

    Raises:
        InvalidFilterError: The text does not parse, names an unknown field, compares values of different types, or
            exceeds a limit. The position is that of the first character of the wrong token, from 1, or the length of
            the text plus 1 if the text ends too early.
    """
    if len(text) > MAX_LENGTH:
        raise error(f"the filter is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    if unstorable := re.search("[\0\ud800-\udfff]", text):
        raise error(f"the character U+{ord(unstorable[0]):04X} is not supported", unstorable.start())
    tokens = tuple(lexer.tokens(text))
    return None if tokens[0].kind is Lexeme.END else Parser(tokens, FIELDS[subject]).filter()


def with_field_renamed(text: str, old: str, new: str) -> str:
    """Return a filter with a field renamed. Values and searched words stay unchanged.

    Raises:
        InvalidFilterError: The text cannot be split into tokens.
    """
    tokens = tuple(lexer.tokens(text))
    written, position = "", 0
    for previous, token, following in zip((None, *tokens), tokens, tokens[1:], strict=False):
        begins_path = previous is None or not (previous.kind is Lexeme.COMPARATOR or previous.is_sign("."))
        if begins_path and following.kind is Lexeme.COMPARATOR and token.pattern.literal == old:
            written += text[position : token.start] + token.text.replace(old, new)
            position = token.start + len(token.text)
    return written + text[position:]
