r"""The directories that the client reads and writes, each with one variable to choose another.

| Directory | Variable | Holds |
|---|---|---|
| configuration | `MODELREG_CONFIG` | the profiles and tokens of `mreg login` |
| state | `MODELREG_STATE` | what a push needs to resume its upload |
| cache | `MODELREG_CACHE` | pulled artifacts; may be deleted at any time |

Without its variable, a directory is `modelreg` in `XDG_CONFIG_HOME`, `XDG_STATE_HOME` or `XDG_CACHE_HOME`, on every
platform. Without that one either, it is the platform's own place: on Linux `~/.config/modelreg`,
`~/.local/state/modelreg` and `~/.cache/modelreg`; on macOS `~/Library/Application Support/modelreg` and
`~/Library/Caches/modelreg`; on Windows `%LOCALAPPDATA%\modelreg` and `%LOCALAPPDATA%\modelreg\Cache`. Configuration
and state can be the same directory, so the names of their files must differ.

Nothing is made before something is written. Use `make_private_directory` of `modelreg._files` for configuration and
state.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs

from modelreg.errors import InvalidArgument

_NAME = "modelreg"


def configuration_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the absolute path of the directory of profiles and tokens.

    Raises:
        InvalidArgument: There is no home directory, and no variable names another place.
    """
    return _directory("MODELREG_CONFIG", "XDG_CONFIG_HOME", platformdirs.user_config_path, environment)


def state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the absolute path of the directory of running uploads.

    Raises:
        InvalidArgument: There is no home directory, and no variable names another place.
    """
    return _directory("MODELREG_STATE", "XDG_STATE_HOME", platformdirs.user_state_path, environment)


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the absolute path of the directory of pulled artifacts.

    Raises:
        InvalidArgument: There is no home directory, and no variable names another place.
    """
    return _directory("MODELREG_CACHE", "XDG_CACHE_HOME", platformdirs.user_cache_path, environment)


def _directory(
    variable: str, xdg_variable: str, platform_path: Callable[..., Path], environment: Mapping[str, str]
) -> Path:
    if chosen := environment.get(variable):
        expanded = os.path.expanduser(chosen)  # noqa: PTH111 - Path's raises RuntimeError
        if expanded.startswith("~"):
            raise InvalidArgument(f"{variable}: {chosen} names a home directory that does not exist.")
        return Path(os.path.abspath(expanded))  # noqa: PTH100 - keeps links as they are
    # The XDG specification says to ignore relative paths.
    xdg = environment.get(xdg_variable, "")
    if os.path.isabs(xdg):  # noqa: PTH117 - the text may be empty, which Path takes for the current directory
        return Path(xdg) / _NAME
    path = platform_path(_NAME, appauthor=False)
    # A user without a home directory: some containers run as a number that is not in the list of users.
    if not path.is_absolute():
        raise InvalidArgument(f"This user has no home directory. Set {variable} to a directory for the client's files.")
    return path
