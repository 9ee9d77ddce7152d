"""What the interpreter tells about the environment of a training."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
import sysconfig
from typing import Any

_PACKAGES_MAX_BYTES = 128 * 1024
"""Of the 1 MiB that a registry takes as metadata by default. Enough for about 4,000 packages."""
_MAX_NAME_LENGTH = 200
_MAX_VERSION_LENGTH = 200


def interpreter() -> dict[str, str]:
    """Return the version of Python and the platform."""
    python = platform.python_version()
    if sys.implementation.name != "cpython":
        python = f"{sys.implementation.name} {python}"
    # Not platform.platform(), which starts a program on some systems.
    return {"python": python, "platform": sysconfig.get_platform()}


def packages() -> dict[str, str]:
    """Return the versions of the installed packages as `packages.<name>`, sorted by name.

    If there are too many, the last ones are left out, and `packages_omitted` is their number.
    """
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        found: Any = distribution  # its types promise texts, and an interrupted installation leaves None behind
        try:
            name, version = found.metadata["Name"], found.version
        except Exception:  # noqa: BLE001, S112 - whatever is wrong with one package is not worth a failed push
            continue
        if not isinstance(name, str) or not isinstance(version, str):
            continue
        if len(name) <= _MAX_NAME_LENGTH and len(version) <= _MAX_VERSION_LENGTH and "\0" not in name + version:
            # The first one is the one that is imported.
            versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    listed: dict[str, str] = {}
    size = 0
    for name in sorted(versions):
        size += len(name.encode()) + len(versions[name].encode()) + len('"packages.": "", ')
        if size > _PACKAGES_MAX_BYTES:
            listed["packages_omitted"] = str(len(versions) - len(listed))
            break
        listed[f"packages.{name}"] = versions[name]
    return listed
