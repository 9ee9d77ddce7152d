"""How pytest-xdist spreads the tests over its workers, in `make test`."""

import json
import os
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

_WORKERS_PER_CORE = 2
"""More than one: half of the time, a test waits for servers to start, to notice or to stop."""
_MAX_WORKERS = 8
_ORDER = ("e2e", "contracts", "integration", "unit")
"""The longest tests first, so that the workers end at about the same time."""
_GROUPS = "groups"
"""In a worker's input: the file for the groups of tests."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many workers `-n auto` means."""
    return min(_WORKERS_PER_CORE * len(os.sched_getaffinity(0)), _MAX_WORKERS)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: "WorkerController") -> None:
    node.workerinput[_GROUPS] = str(_groups_file(node.config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "Scheduling | None":
    """Return a scheduler that keeps the tests of a group on one worker; None for another `--dist`."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - optional

    class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
        """xdist's `loadgroup`, except for how it learns of the groups.

        xdist 3.8 appends a group to the ids of its tests. pytest 9.2 ignores the new ids, and all groups were split
        (https://github.com/pytest-dev/pytest-xdist/issues/1386).
        """

        @cached_property
        def _groups(self) -> dict[str, str]:
            groups: dict[str, str] = json.loads(_groups_file(self.config).read_text(encoding="utf-8"))
            return groups

        def _split_scope(self, nodeid: str) -> str:
            return self._groups.get(nodeid, nodeid)

    return GroupScheduling(config, log)


_folder = pytest.StashKey[Path]()


def _groups_file(config: pytest.Config) -> Path:
    """Return the file through which a worker passes the groups of tests to the scheduler, in another process."""
    if _folder not in config.stash:
        folder = TemporaryDirectory(prefix="model-registry-groups-")
        config.add_cleanup(folder.cleanup)
        config.stash[_folder] = Path(folder.name)
    return config.stash[_folder] / "groups.json"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # For xdist alone: without it, pytest's order shares each fixture as far as it can.
    worker: dict[str, str] | None = getattr(config, "workerinput", None)
    if worker is None:
        return
    items.sort(key=lambda item: _position(item.path))
    groups = {item.nodeid: group for item in items if (group := _group(item))}
    # All workers collect the same tests, and the scheduler waits for all of them.
    unfinished = Path(worker[_GROUPS]).with_name(worker["workerid"])
    unfinished.write_text(json.dumps(groups), encoding="utf-8")
    unfinished.replace(worker[_GROUPS])


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
