"""The command `profile`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from modelreg.cli._frame import Group, with_session
from modelreg.cli._output import Column, note

if TYPE_CHECKING:
    from modelreg.cli._session import Session
    from modelreg.profiles import Profile


@click.group("profile", cls=Group)
def profile_command() -> None:
    """List, choose and remove the profiles of `mreg login`.

    They are in profiles.json of MODELREG_CONFIG, else of the platform's own place. The active profile is used where
    neither --url and --profile nor MODELREG_URL and MODELREG_PROFILE say another one.
    """


_COLUMNS = (
    Column[Any]("", lambda found: "*" if found["active"] else "", lambda found: "active" if found["active"] else ""),
    Column[Any]("name", lambda found: found["name"], style="green"),
    Column[Any]("url", lambda found: found["url"], shrinks=True),
    Column[Any]("sign-in", lambda found: found["sign_in"].replace("_", " ")),
    Column[Any]("subject", lambda found: found["subject"], shrinks=True),
)


def document_of_profile(profile: Profile, *, is_active: bool) -> dict[str, Any]:
    """Return a profile as JSON."""
    return {
        "name": profile.name,
        "url": profile.url,
        "active": is_active,
        "sign_in": profile.sign_in,
        "subject": profile.subject,
        "issuer": profile.issuer,
    }


@profile_command.command("ls")
@with_session
def list_profiles(session: Session) -> None:
    """List the profiles."""
    from modelreg.profiles import Profiles  # noqa: PLC0415 - as all of the library, not before it is used

    profiles = Profiles()
    active = profiles.active()
    documents = [document_of_profile(found, is_active=found == active) for found in profiles]
    session.output.items(documents, key="profiles", columns=_COLUMNS, quiet=lambda found: found["name"], paged=False)
    if not documents and session.output.is_human:
        note("There is no profile. `mreg login` makes one.")


@profile_command.command("use")
@click.argument("name", metavar="NAME")
@with_session
def use_profile(session: Session, name: str) -> None:
    """Make a profile the active one."""
    from modelreg.profiles import Profiles  # noqa: PLC0415 - as all of the library

    profile = Profiles().use(name)
    session.output.result(
        document_of_profile(profile, is_active=True),
        human=partial(note, f"The active profile is now {name}: {profile.url}."),
        quiet=name,
    )


@profile_command.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@with_session
def remove_profiles(session: Session, names: tuple[str, ...]) -> None:
    """Remove profiles, and sign out of them."""
    from modelreg._access.sign_in import sign_out  # noqa: PLC0415 - as all of the library
    from modelreg.profiles import Profiles  # noqa: PLC0415

    profiles = Profiles()
    for profile in [profiles.get(name) for name in names]:
        _, problem = sign_out(profiles, profile)
        if problem:
            note(f"Warning: {problem}")
        profiles.remove(profile.name)
        session.output.result(
            document_of_profile(profile, is_active=False),
            human=partial(note, f"Removed the profile {profile.name} of {profile.url}."),
            quiet=profile.name,
        )
