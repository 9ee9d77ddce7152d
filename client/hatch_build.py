"""Add the stubs `modelregistry` to the client's wheel and source distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PACKAGE = "modelregistry"


class StubsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Include the stubs from where they are: generated/ of the repository, or the unpacked source distribution."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the folder of the stubs, except in an editable installation, which has it in `dev-mode-dirs`.

        Raises:
            FileNotFoundError: Neither place has the stubs.
        """
        if version == "editable":
            return
        root = Path(self.root)
        places = [root.parent / "generated" / _PACKAGE, root / _PACKAGE]
        stubs = next((place for place in places if (place / "v1").is_dir()), None)
        if stubs is None:
            raise FileNotFoundError(
                f"The stubs are in none of {', '.join(map(str, places))}: build in the folder client/ of a checkout."
            )
        build_data["force_include"][str(stubs)] = _PACKAGE
