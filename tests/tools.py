"""The mark `tools`: tests that do something else where MinIO, grpcurl, Helm or another optional tool is there.

`.ci/run` runs these tests a second time, with the tools.
"""

import inspect
import re
from functools import cache
from pathlib import Path

import pytest

_MODULES = re.compile(r'running_s3\(|S3Server\(|_BINARY\b|environ\.get\("EXAMPLES"|shutil\.which\(')
"""What a module says that starts an S3 of its own, or looks for a program."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "tools: does something else where an optional tool is there (set by tests/tools.py)"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and _uses_a_tool(item):
            item.add_marker(pytest.mark.tools)


def _uses_a_tool(item: pytest.Function) -> bool:
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return (
        "s3_server" in item.fixturenames
        or any(value == "s3" for value in parameters if isinstance(value, str))
        or _module_uses_a_tool(item.path)
        or ("grpcurl" in _text(item.path) and "grpcurl" in inspect.getsource(item.function))
    )


@cache
def _module_uses_a_tool(path: Path) -> bool:
    return bool(_MODULES.search(_text(path)))


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
