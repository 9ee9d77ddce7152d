"""The completion of names of models in shells."""

from __future__ import annotations

import re

import click

from modelreg.cli._session import Session

_SECONDS = 1.0
_MAX_NAMES = 100
# What needs no escapes in a filter, and not in a reference either.
_PLAIN = re.compile(r"[\w.-]*")


def complete_name(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names that begin with a text, as far as the registry tells them within a second.

    Not versions and aliases: bash takes `:` and `@` for the ends of words.
    """
    del parameter
    return _names(context, incomplete, show_empty=False)


def complete_group(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names that begin with a text, as `complete_name`, also those of model groups without models."""
    del parameter
    return _names(context, incomplete, show_empty=True)


def _names(context: click.Context, incomplete: str, *, show_empty: bool) -> list[str]:
    session = context.find_object(Session)
    if session is None or not _PLAIN.fullmatch(incomplete):
        return []
    # In here, because the completion of commands and options must not wait for these imports.
    from modelreg import Registry, RegistryError  # noqa: PLC0415

    try:
        with Registry(**{**session.registry_arguments, "timeout": _SECONDS}) as registry:
            groups = registry.groups(f'name = "{incomplete}*"', show_empty=show_empty).to_list(_MAX_NAMES)
    except RegistryError:
        return []
    # A shell may not escape what it inserts.
    return sorted({group.name for group in groups if _PLAIN.fullmatch(group.name)})
