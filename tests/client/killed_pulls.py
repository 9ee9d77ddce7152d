"""A program that pulls a folder in children that are killed at their first, second, … change of the file system.

Usage: killed_pulls.py URL FOLDER (cache | new | empty | overwrite)
"""

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

# Imported here, and not in each of the children: half of the CPU time of a pull.
import filelock  # noqa: F401
import grpc._channel  # noqa: F401
import modelreg.profiles  # noqa: F401
from modelreg import Cache, Registry

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime", "os.link", "os.truncate", "open"}
_OLD = {"old.txt": b"old", "model.xml": b"<old/>"}


def main(url: str, root: Path, scenario: str) -> None:
    """Print the number of kills. Raises AssertionError if one leaves half a model."""
    whole = _pulled_in_child(url, root / "reference", scenario="cache", kill_at=0)
    assert whole == 0
    expected = _tree(next((root / "reference/cache/folders").glob("*/f")))
    assert len(expected) == 2
    for step in range(1, 1000):
        place = root / str(step)
        code = _pulled_in_child(url, place, scenario=scenario, kill_at=step)
        _check(place, scenario, expected, is_complete=code == 0)
        # Whatever the kill left, the next pull succeeds.
        assert _pulled_in_child(url, place, scenario=scenario, kill_at=0) == 0
        _check(place, scenario, expected, is_complete=True)
        shutil.rmtree(place)
        if code == 0:
            print(step - 1)  # noqa: T201
            return
    raise AssertionError("no end")


def _check(place: Path, scenario: str, expected: dict[str, bytes], *, is_complete: bool) -> None:
    if scenario == "cache":
        _check_cache(place / "cache", expected, is_complete=is_complete)
        return
    target = place / "parent/to"
    found = _tree(target) if target.exists() else {}
    allowed = [expected]
    if not is_complete:
        allowed += [{}, _OLD] if scenario == "overwrite" else [{}]
    assert found in allowed, sorted(found)


def _check_cache(cache: Path, expected: dict[str, bytes], *, is_complete: bool) -> None:
    record = next(iter(cache.glob("folders/*.json")), None)
    assert record or not is_complete
    if record:
        path = Cache(cache).slot("folders", record.stem).find("f", True)
        assert path is not None
        assert _tree(path) == expected


def _pulled_in_child(url: str, place: Path, *, scenario: str, kill_at: int) -> int:
    """Return the exit status of a child that pulls, and is killed at a change of the file system."""

    def pull() -> None:
        os.environ["MODELREG_CACHE"] = str(place / "cache")
        target = place / "parent/to"
        if scenario != "cache" and not target.exists() and not (place / "began").exists():
            if scenario != "new":
                target.mkdir(parents=True)
            if scenario == "overwrite":
                for name, data in _OLD.items():
                    (target / name).write_bytes(data)
        place.mkdir(parents=True, exist_ok=True)
        (place / "began").touch()
        registry = Registry(url)
        model = registry.model("m")
        if kill_at:
            _kill_at(kill_at)
        registry.pull(model, to=None if scenario == "cache" else target, overwrite=scenario == "overwrite")
        os._exit(0)

    return _in_child(pull)


def _kill_at(step: int) -> None:
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event not in _CHANGES:
            return
        if event == "open" and not _writes(arguments):
            return
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _in_child(function: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        function()
    except BaseException:  # noqa: BLE001 - a child must never return
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _tree(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        inside: path.read_bytes()
        for path in paths
        if not (inside := path.relative_to(folder).as_posix()).startswith(".modelreg-")
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
