"""Who may do what: roles, what they allow, and in which projects.

A project is what models have as their `project_id`; its name says nothing. Models
without one belong to no project, so only who may act in all projects sees them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

Projects = frozenset[str] | None
"""Ids of projects; None for all of them, and for models that have none."""


class Permission(StrEnum):
    """What a call takes."""

    READ = "read"
    WRITE = "write"
    """Register, upload, import and change models."""
    PROMOTE = "promote"
    """Move and delete aliases."""
    ADMINISTER = "administer"
    """Delete models, and read and check the log of changes."""


class Role(StrEnum):
    """What somebody is allowed."""

    READER = "reader"
    WRITER = "writer"
    PROMOTER = "promoter"
    ADMIN = "admin"

    @property
    def permissions(self) -> frozenset[Permission]:
        """What the role allows."""
        return _PERMISSIONS[self]


_PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.READER: frozenset({Permission.READ}),
    Role.WRITER: frozenset({Permission.READ, Permission.WRITE}),
    Role.PROMOTER: frozenset({Permission.READ, Permission.PROMOTE}),
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Grant:
    """A role in one project, or in all."""

    role: Role
    project_id: str | None = None
    """None: in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Somebody who has shown who they are."""

    actor: str
    """What their changes are written down with."""
    grants: tuple[Grant, ...]
    expire_time: datetime | None = None
    """Aware, by this machine's clock; when they have to show it anew. None: never."""


@dataclass(frozen=True, slots=True)
class Access:
    """What one call may touch."""

    visible: Projects
    """Where it may read. What is elsewhere is not there, as far as the call can tell."""
    acting: Projects
    """Where it may do what the call does."""

    @property
    def is_restricted(self) -> bool:
        """Whether there is anything that it may not touch."""
        return self.visible is not None or self.acting is not None

    def sees(self, project_id: str | None) -> bool:
        """Tells whether it may read the models of a project."""
        return self.visible is None or project_id in self.visible

    def acts_in(self, project_id: str | None) -> bool:
        """Tells whether it may do in a project what it does."""
        return self.acting is None or project_id in self.acting


EVERYTHING = Access(visible=None, acting=None)
NOTHING = Access(visible=frozenset(), acting=frozenset())


def access_of(grants: Sequence[Grant], permission: Permission) -> Access | None:
    """Returns what a call that takes a permission may touch; None where the permission is granted nowhere."""
    acting = _projects(grants, permission)
    if acting is not None and not acting:
        return None
    return Access(visible=_projects(grants, Permission.READ), acting=acting)


def _projects(grants: Sequence[Grant], permission: Permission) -> Projects:
    projects = {grant.project_id for grant in grants if permission in grant.role.permissions}
    return None if None in projects else frozenset(project for project in projects if project is not None)


class Authenticator(Protocol):
    """Tells who somebody is by what they show."""

    def __call__(self, token: str) -> Identity:
        """Returns whose bearer token it is; what it says may be some seconds old.

        Raises:
            InvalidCredentialsError: It is nobody's, or not any more.
            UnavailableError: What it takes to tell is away.
        """
