"""Splitting a filter into tokens."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from registry_service.domain.errors import InvalidFilterError
from registry_service.domain.filter.nodes import Pattern

_EMPTY = Pattern(("",))


class Lexeme(Enum):
    """The kinds of tokens."""

    TEXT = "text"
    QUOTED = "quoted"
    COMPARATOR = "comparator"
    SIGN = "sign"
    """A parenthesis, a comma, a dot, or the minus before a term."""
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a filter."""

    kind: Lexeme
    text: str
    """As the client wrote it."""
    start: int
    """From 0."""
    is_spaced: bool
    """Whether white space precedes the token."""
    pattern: Pattern = _EMPTY
    """The text without quotes and escapes. Only TEXT and QUOTED have one."""

    def is_sign(self, *signs: str) -> bool:
        """Tell whether the token is one of these signs."""
        return self.kind is Lexeme.SIGN and self.text in signs

    def is_keyword(self, *keywords: str) -> bool:
        """Tell whether the token is one of these words, without quotes."""
        return self.kind is Lexeme.TEXT and self.text in keywords

    def begins_term(self) -> bool:
        """Tell whether a restriction can start here."""
        return self.kind in {Lexeme.TEXT, Lexeme.QUOTED} or self.is_sign("(", "-")


_SPACE = re.compile(r"\s*")
_COMPARATOR = re.compile(r"<=|>=|!=|[=<>:]")
_PLAIN = re.compile(r"(?:[^\s()\"'=<>:!.,\\]|\\\S)+")
# A value may be a timestamp, a digest or a decimal number.
_PLAIN_VALUE = re.compile(r"(?:[^\s()\"'=<>:!,\\]|\\\S)(?:[^\s()\"'=<>!,\\]|\\\S)*")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def tokens(text: str) -> Iterator[Token]:
    """Split a text. The last token is END."""
    previous: Token | None = None
    position = 0
    while True:
        start = _SPACE.match(text, position).end()  # type: ignore[union-attr] # it matches the empty text
        previous = _token(text, start, previous, is_spaced=start > position)
        yield previous
        if previous.kind is Lexeme.END:
            return
        position = start + len(previous.text)


def _token(text: str, start: int, previous: Token | None, *, is_spaced: bool) -> Token:
    first = text[start : start + 1]
    is_value = previous is not None and previous.kind is Lexeme.COMPARATOR
    is_name = previous is not None and previous.is_sign(".")
    if not first:
        return Token(Lexeme.END, "", start, is_spaced)
    if found := _COMPARATOR.match(text, start):
        return Token(Lexeme.COMPARATOR, found[0], start, is_spaced)
    if first in "\"'":
        if not (found := _QUOTED.match(text, start)):
            raise error("missing closing quote", start)
        return Token(Lexeme.QUOTED, found[0], start, is_spaced, _unescaped(found[0][1:-1], start + 1))
    if first in "()," or (first == "." and not is_value) or (first == "-" and not is_value and not is_name):
        return Token(Lexeme.SIGN, first, start, is_spaced)
    if found := (_PLAIN_VALUE if is_value else _PLAIN).match(text, start):
        return Token(Lexeme.TEXT, found[0], start, is_spaced, _unescaped(found[0], start))
    if first == "!":
        raise error("! is only valid in !=; write NOT", start)
    raise error("missing character after the backslash", start)


def _unescaped(text: str, start: int) -> Pattern:
    """Resolve the escapes of a text that begins at `start`, and split the text at its wildcards."""
    parts = [""]
    characters = iter(enumerate(text, start))
    for position, character in characters:
        if character == "*":
            # Adjacent wildcards mean the same as one.
            if len(parts) == 1 or parts[-1]:
                parts.append("")
        elif character == "\\":
            _, escaped = next(characters)
            if escaped.isalnum() and escaped not in _ESCAPES:
                raise error(f"unknown escape \\{escaped}; write \\\\ for a backslash", position)
            parts[-1] += _ESCAPES.get(escaped, escaped)
        else:
            parts[-1] += character
    return Pattern(tuple(parts))


def shown(text: str) -> str:
    """Shorten text from the client, so that an error stays readable."""
    return text if len(text) <= 60 else text[:59] + "…"


def error(description: str, start: int) -> InvalidFilterError:
    """Return the error at the character `start`, counted from 0."""
    return InvalidFilterError(description, start + 1)
