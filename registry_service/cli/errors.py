"""Errors of commands, as their users see them."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

from registry_service.domain.errors import RegistryError, UnavailableError
from registry_service.domain.user_error import UserError
from registry_service.settings import SettingsError

P = ParamSpec("P")


def user_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors that the user can fix into a message and exit code 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SettingsError as error:
            raise click.ClickException(f"settings:\n{error}") from error
        except UnavailableError as error:
            raise click.ClickException(f"{error}\n{_root_cause(error)}") from error
        except (RegistryError, UserError, OSError) as error:
            # An OSError here concerns a file or folder of the settings, as it only passes through at the start.
            raise click.ClickException(str(error)) from error

    return run


def _root_cause(error: BaseException) -> BaseException:
    """Return the first error of a chain, such as a rejected certificate or an unknown host."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
