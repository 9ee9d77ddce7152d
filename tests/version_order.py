"""A second implementation of the version order, from decision 0011, to compare with: tuples instead of bytes."""

import re
from typing import Any

_KNOWN = {
    **dict.fromkeys(("dev", "nightly", "snapshot"), 0),
    "alpha": 1,
    "beta": 2,
    **dict.fromkeys(("rc", "pre", "preview"), 3),
    "post": 5,
}
_RELEASED = 4
_END = (4, ())
_SEPARATORS = "".join(map(chr, range(1, 128)))
_SEPARATORS = "".join(c for c in _SEPARATORS if not c.isalnum())


def version_key(version: str) -> tuple[Any, ...]:
    """Return a key that sorts like `model_version_key`, for versions that are short enough."""
    tokens, local = _parts(version)
    symbols: list[Any] = []
    zeros: list[Any] = []
    for token in tokens:
        if token.isdigit() and token.isascii():
            zeros.append((7, int(token)))
            if int(token):
                symbols += zeros
                zeros = []
        else:
            zeros = []
            symbols.append((_KNOWN[token], ()) if token in _KNOWN else (6, token))
    return (*symbols, _END, *_plain(local))


def is_release(version: str) -> bool:
    """Tell whether a version is a release: no word of it marks a pre-release."""
    tokens, _ = _parts(version)
    return all(_KNOWN.get(token, _RELEASED) >= _RELEASED for token in tokens)


def sort_key(version: str) -> tuple[Any, ...]:
    """Return a key that sorts like `order_by=version`."""
    return (version_key(version), version[:400])


def _parts(version: str) -> tuple[list[str], str]:
    folded = "".join(c.lower() if c.isascii() else c for c in version[:400])
    folded = re.sub("^v(?=[0-9])", "", folded)
    public, _, local = folded.partition("+")
    for letter, word in (("a", "alpha"), ("b", "beta"), ("c", "rc")):
        public = re.sub(f"(?<=[0-9]){letter}(?=[0-9])", f" {word} ", public)
    return _tokens(public), local


def _tokens(text: str) -> list[str]:
    separators = re.escape(_SEPARATORS)
    return re.findall(f"[0-9]+|[^0-9{separators}]+", text)


def _plain(local: str) -> list[Any]:
    return [(7, int(token)) if token.isdigit() and token.isascii() else (6, token) for token in _tokens(local)]
