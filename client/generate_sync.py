"""Generate `modelreg/_sync` from `modelreg/_async`: the same code without `async` and `await`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_HAND_WRITTEN = {"__init__.py", "runtime.py"}
_HEADER = "# Generated from modelreg/_async by `make generate`. Do not edit.\n"
# In this order, in code, docstrings and comments alike.
_REPLACEMENTS = [
    (r"\[(\w+) async for \1 in ([^\n]+)\]", r"list(\2)"),
    (r"\basync (def|for|with)\b", r"\1"),
    # The parentheses around what is awaited, where its arguments have at most one level of their own.
    (r"(?<![\w\])])\(await ([\w.]+\((?:[^()]|\([^()]*\))*\))\)", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsyncIterable\b", "Iterable"),
    (r"\bAsyncGenerator\[([^\[\]]*), None\]", r"Generator[\1, None, None]"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"\bCoroutine\[Any, Any, ([^\[\]]*(?:\[[^\[\]]*\])?)\]", r"\1"),
    (r"\bCoroutine, ", ""),
    (r", Coroutine\b", ""),
    (r"\bAsyncExitStack\b", "ExitStack"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\bAbstractAsyncContextManager\b", "AbstractContextManager"),
    (r"\baclosing\b", "closing"),
    (r"\baclose\b", "close"),
    (r"\b__aiter__\b", "__iter__"),
    (r"\b__anext__\b", "__next__"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\banext\(", "next("),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\bmodelreg\._async\b", "modelreg._sync"),
    (r"\bmodelreg\.aio\b", "modelreg"),
]


def to_sync(source: str) -> str:
    """Return the synchronous version of a module."""
    for pattern, replacement in _REPLACEMENTS:
        source = re.sub(pattern, replacement, source)
    return _HEADER + source


def main(target: Path) -> None:
    """Write the modules into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).parent / "modelreg/_async"
    names = {path.name for path in source.glob("*.py")} - _HAND_WRITTEN
    for path in target.glob("*.py"):
        if path.name not in names | _HAND_WRITTEN:
            path.unlink()
    for name in sorted(names):
        (target / name).write_text(to_sync((source / name).read_text(encoding="utf-8")), encoding="utf-8")
    # Shorter words and other modules: lines and imports are laid out anew.
    # The same in every folder, whatever ruff finds around it.
    imports = ["check", "--select=F401,I", "--fix", "--config=lint.isort.known-first-party=['modelreg']"]
    for command in (imports, ["format"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", "--target-version=py310", str(target)], check=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
