"""How pytest-xdist spreads the tests over its workers, in `make test`."""

import os
from pathlib import Path

import pytest

_WORKERS_PER_CORE = 2
"""More than one: half of the time, a test waits for servers to start, to notice or to stop."""
_MAX_WORKERS = 8
_ORDER = ("e2e", "contracts", "integration", "unit")
"""The longest tests first, so that the workers end at about the same time."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): the tests of a group run on one worker")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many workers `-n auto` means."""
    return min(_WORKERS_PER_CORE * len(os.sched_getaffinity(0)), _MAX_WORKERS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # For xdist alone: without it, pytest's order shares each fixture as far as it can.
    if not hasattr(config, "workerinput"):
        return
    items.sort(key=lambda item: _position(item.path))
    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))


def _position(path: Path) -> int:
    folder = path.parent.name
    return _ORDER.index(folder) if folder in _ORDER else len(_ORDER)


def _group(item: pytest.Item) -> str | None:
    """Return what the tests have in common that share an expensive fixture: the product, or one of their module."""
    assert isinstance(item, pytest.Function)
    # A module may have a product of its own.
    scopes = {name: definitions[-1].scope for name, definitions in item._fixtureinfo.name2fixturedefs.items()}
    if scopes.get("product") == "session":
        owner, shared = "product", ["product"]
    elif shared := sorted(name for name, scope in scopes.items() if scope == "module"):
        owner = item.path.stem
    else:
        return None
    indices = item.callspec.indices if hasattr(item, "callspec") else {}
    return "-".join((item.path.parent.name, owner, *(str(indices[name]) for name in shared if name in indices)))
