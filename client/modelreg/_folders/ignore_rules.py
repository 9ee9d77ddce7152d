"""Rules of `.mregignore`: the syntax and the meaning of `.gitignore`.

The rules decide what a packed folder holds, and so its digest. They are therefore implemented here and tested against
git, instead of left to a library whose versions differ in corner cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

FILE_NAME = ".mregignore"
"""Name of the files with rules. A rule applies to the folder of its file and to what is in it."""

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "\\x21-\\x7e",
    "lower": "a-z",
    "print": "\\x20-\\x7e",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t\\n\\r\\f\\v",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


@dataclass(frozen=True)
class _Rule:
    path: re.Pattern[str]
    is_negated: bool
    only_folders: bool


class IgnoreRules:
    """The rules of one file.

    Args:
        lines: Lines as in a `.gitignore`.
        base: Folder that the rules apply to, relative to the root and ending in `/`. Empty: the root.
    """

    def __init__(self, lines: Iterable[str], base: str = "") -> None:
        self._base = base
        self._rules = [rule for line in lines if (rule := _parsed(line)) is not None]
        self._rules.reverse()

    def decision(self, path: str, *, is_folder: bool) -> bool | None:
        """Return whether the last matching rule ignores a path, or None if no rule matches.

        Args:
            path: Path relative to the root, with `/`.
            is_folder: Whether it is a folder.
        """
        relative = path[len(self._base) :]
        for rule in self._rules:
            if (is_folder or not rule.only_folders) and rule.path.fullmatch(relative):
                return not rule.is_negated
        return None


def is_ignored(path: str, rules: Sequence[IgnoreRules], *, is_folder: bool) -> bool:
    """Return whether rules ignore a path. Of several sets of rules, the last one that decides wins.

    As in git, nothing inside an ignored folder can be included again: do not ask about what is inside.
    """
    for these in reversed(rules):
        decision = these.decision(path, is_folder=is_folder)
        if decision is not None:
            return decision
    return False


def _parsed(line: str) -> _Rule | None:
    """Return the rule of a line, or None if the line has none."""
    line = _without_trailing_spaces(line.rstrip("\n").removesuffix("\r"))
    if not line or line.startswith("#"):
        return None
    is_negated = line.startswith("!")
    if is_negated:
        line = line[1:]
    only_folders = line.endswith("/")
    if only_folders:
        line = line[:-1]
    is_anchored = "/" in line
    try:
        pattern = "".join(_translated(line.removeprefix("/")))
    except _InvalidPatternError:
        return None
    prefix = "" if is_anchored else "(?:.*/)?"
    return _Rule(re.compile(prefix + pattern, re.DOTALL), is_negated, only_folders) if line else None


def _without_trailing_spaces(line: str) -> str:
    """Remove trailing spaces except one that a backslash escapes."""
    stripped = line.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    return stripped + " " if backslashes % 2 and stripped != line else stripped


class _InvalidPatternError(Exception):
    """The pattern matches nothing."""


def _translated(pattern: str) -> Iterator[str]:
    """Yield the parts of a regular expression for a pattern (wildmatch of git, with WM_PATHNAME)."""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == "*":
            end = position
            while pattern[end : end + 1] == "*":
                end += 1
            starts_segment = position == 0 or pattern[position - 1] == "/"
            following = pattern[end : end + 1]
            if end - position < 2 or not starts_segment or following not in {"", "/"}:
                yield "[^/]*"
            elif following == "/":
                yield "(?:.*/)?"
                end += 1
            else:
                yield ".*"
            position = end
        elif character == "?":
            yield "[^/]"
            position += 1
        elif character == "[":
            text, position = _bracket(pattern, position + 1)
            yield text
        elif character == "\\":
            if position + 1 == len(pattern):
                raise _InvalidPatternError
            yield re.escape(pattern[position + 1])
            position += 2
        else:
            yield re.escape(character)
            position += 1


def _bracket(pattern: str, position: int) -> tuple[str, int]:
    """Return a bracket expression as a regular expression, and the position after it.

    Follows wildmatch step by step: a range such as `z-a` is `z` alone, and what ends a range or a class begins none.
    """
    is_negated = pattern[position : position + 1] in {"!", "^"}
    position += is_negated
    parts: list[str] = []
    low: str | None = None
    first = position
    while position == first or pattern[position : position + 1] != "]":
        if low is not None and pattern[position] == "-" and pattern[position + 1 : position + 2] not in {"", "]"}:
            high, position = _literal(pattern, position + 1)
            if low <= high:
                parts.append(f"{re.escape(low)}-{re.escape(high)}")
            low = None
        elif (name := _class(pattern, position)) is not None:
            if name not in _CLASSES:
                raise _InvalidPatternError
            parts.append(_CLASSES[name])
            position += len(name) + 4
            low = None
        else:
            low, position = _literal(pattern, position)
            parts.append(re.escape(low))
        if position >= len(pattern):
            raise _InvalidPatternError
    inside = f"[{''.join(parts)}]"
    return f"(?!/|{inside})." if is_negated else f"(?!/){inside}", position + 1


def _class(pattern: str, position: int) -> str | None:
    """Return the name of the class at a position, such as alpha of `[:alpha:]`, or None."""
    if not pattern.startswith("[:", position):
        return None
    end = pattern.find("]", position + 2)
    if end < 0:
        raise _InvalidPatternError
    name = pattern[position + 2 : end]
    return name[:-1] if name.endswith(":") else None


def _literal(pattern: str, position: int) -> tuple[str, int]:
    """Return the character at a position, which a backslash may escape, and the position after it."""
    position += pattern[position : position + 1] == "\\"
    if position >= len(pattern):
        raise _InvalidPatternError
    return pattern[position], position + 1
