"""Text of the code, such as descriptions and help, as Markdown."""

import re

_SETTING = re.compile(r"\b[A-Z][A-Z0-9]*_(?:\*|[A-Z0-9_*]+)(?:=\w+)?")


def prose(text: str) -> str:
    """Return a text with the names of settings and statuses as code, unless they are already."""
    parts = text.split("`")
    return "`".join(_SETTING.sub(r"`\g<0>`", part) if i % 2 == 0 else part for i, part in enumerate(parts))


def cell(text: str) -> str:
    """Return a text for a cell of a table: on one line, without the character that ends the cell."""
    return " ".join(text.split()).replace("|", r"\|")
