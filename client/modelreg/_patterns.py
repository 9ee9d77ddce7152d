"""Patterns of paths inside an artifact."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from modelreg.errors import InvalidArgument, NotFound

_SHOWN_PATHS = 5


class Patterns:
    """The `files` of a pull.

    Args:
        files: Paths, or patterns: `*` is any text without `/`, `?` one character but `/`, `[ab]` one of the characters,
            `**` any text, and `**/` any number of folders, also none.

    Raises:
        InvalidArgument: There is no pattern.

    >>> Patterns("*.xml").select(["model.xml", "old/model.xml"], "vad:1")
    ['model.xml']
    >>> Patterns("**/*.xml").select(["model.xml", "old/model.xml"], "vad:1")
    ['model.xml', 'old/model.xml']
    """

    def __init__(self, files: str | Sequence[str]) -> None:
        texts = (files,) if isinstance(files, str) else tuple(files)
        self.texts = tuple(sorted(set(texts)))
        """The patterns, each once."""
        if not self.texts or not all(self.texts):
            raise InvalidArgument("files: name at least one path or pattern, for example '*.xml', and no empty one.")
        self._expressions = {text: re.compile(_expression(text), re.DOTALL) for text in self.texts}

    def match(self, path: str) -> bool:
        """Tell whether a pattern matches a path."""
        return any(path == text or expression.fullmatch(path) for text, expression in self._expressions.items())

    def select(self, paths: Iterable[str], label: str) -> list[str]:
        """Return the paths that a pattern matches, in their order.

        Args:
            paths: All paths.
            label: What they are in, for the error.

        Raises:
            NotFound: A pattern matches nothing.
        """
        everything = list(paths)
        for text, expression in self._expressions.items():
            if not any(path == text or expression.fullmatch(path) for path in everything):
                raise _no_match(text, everything, label)
        return [path for path in everything if self.match(path)]


def _no_match(text: str, paths: Sequence[str], label: str) -> NotFound:
    shown = ", ".join(repr(path[:200]) for path in paths[:_SHOWN_PATHS])
    more = f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else ""
    hint = " * stops at /: write ** to look into folders, too." if "*" in text and "**" not in text else ""
    return NotFound(f"files: {text!r} matches no file of {label}.{hint} It has {shown or 'no files'}{more}.")


def _expression(text: str) -> str:
    """Return the regular expression of a pattern."""
    found = []
    index = 0
    while index < len(text):
        rest = text[index:]
        if rest.startswith("**/") and (index == 0 or text[index - 1] == "/"):
            piece, length = "(?:[^/]+/)*", 3
        elif rest.startswith("**"):
            piece, length = ".*", 2
        elif rest[0] == "*":
            piece, length = "[^/]*", 1
        elif rest[0] == "?":
            piece, length = "[^/]", 1
        elif match := re.match(r"\[([!^]?)(\]?[^\]/]*)\]", rest):
            negation = "^/" if match[1] else ""
            inside = match[2].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            piece, length = (f"[{negation}{inside}]", len(match[0])) if inside else (re.escape(match[0]), len(match[0]))
        else:
            piece, length = re.escape(rest[0]), 1
        found.append(piece)
        index += length
    return "".join(found)
