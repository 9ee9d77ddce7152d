"""Patterns of paths inside an artifact."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

from modelreg.errors import InvalidArgument, NotFound

_SHOWN_PATHS = 5
_MAX_ALTERNATIVES = 32


class Patterns:
    """The `files` of a pull.

    Args:
        files: Paths, or patterns: `*` is any text without `/`, `?` one character but `/`, `[ab]` one of the characters,
            `[!ab]` another one, `**` any text, and `**/` any number of folders, also none.

    Raises:
        InvalidArgument: There is no pattern, or one is too complex.

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
        self._patterns = [_Pattern(text) for text in self.texts]

    def match(self, path: str) -> bool:
        """Tell whether a pattern matches a path."""
        return any(pattern.match(path) for pattern in self._patterns)

    def select(self, paths: Iterable[str], label: str) -> list[str]:
        """Return the paths that a pattern matches, in their order.

        Args:
            paths: All paths.
            label: What they are in, for the error.

        Raises:
            NotFound: A pattern matches nothing.
        """
        everything = list(paths)
        for pattern in self._patterns:
            if not any(pattern.match(path) for path in everything):
                raise _no_match(pattern.text, everything, label)
        return [path for path in everything if self.match(path)]


class _Pattern:
    """One pattern. Takes no more than linear time, but for the number of folders, whatever the pattern is."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._alternatives = [
            [None if segment == "**" else re.compile(fnmatch.translate(segment)) for segment in segments]
            for segments in _alternatives(text)
        ]

    def match(self, path: str) -> bool:
        # A path counts as itself, whatever characters are in it.
        if path == self.text:
            return True
        segments = path.split("/")
        return any(_match(alternative, segments) for alternative in self._alternatives)


def _match(pattern: Sequence[re.Pattern[str] | None], segments: Sequence[str]) -> bool:
    """Tell whether the expressions match the segments of a path. None is `**`."""
    ends = {0}
    """How many segments the expressions so far can match."""
    for place, expression in enumerate(pattern):
        if not ends:
            return False
        if expression is not None:
            ends = {end + 1 for end in ends if end < len(segments) and expression.match(segments[end])}
        elif place == len(pattern) - 1:
            # What is in a folder, not the folder itself.
            return min(ends) < len(segments)
        else:
            ends = set(range(min(ends), len(segments) + 1))
    return len(segments) in ends


def _alternatives(text: str) -> list[list[str]]:
    """Return the patterns without `**` inside of a segment that together match what a pattern matches.

    `a**b` matches what `a*b` and `a*/**/*b` match.
    """
    found: list[list[str]] = [[]]
    for segment in text.split("/"):
        if "**" not in segment or segment == "**":
            found = [[*before, segment] for before in found]
            continue
        pieces = re.split(r"\*\*+", segment)
        found = [[*before, pieces[0]] for before in found]
        for piece in pieces[1:]:
            same = [[*before[:-1], f"{before[-1]}*{piece}"] for before in found]
            across = [[*before[:-1], f"{before[-1]}*", "**", f"*{piece}"] for before in found]
            found = same + across
            if len(found) > _MAX_ALTERNATIVES:
                raise InvalidArgument(f"files: {text!r} has too many ** beside other text. Write **/ for folders.")
    return found


def _no_match(text: str, paths: Sequence[str], label: str) -> NotFound:
    shown = ", ".join(repr(path[:200]) for path in paths[:_SHOWN_PATHS])
    more = f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else ""
    hint = " * stops at /: write ** to look into folders, too." if "*" in text and "**" not in text else ""
    return NotFound(
        f"files: {text!r} matches no file of {label}.{hint} It has {shown or 'no files'}{more}.",
        reason="ARTIFACT_FILE_NOT_FOUND",
    )
