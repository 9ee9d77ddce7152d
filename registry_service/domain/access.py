"""Authorization: roles, their permissions, and the projects in which they apply.

The project of a model is its `project_id`; the name of the project plays no role. Only callers with a role in all
projects see models without a project.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

Projects = frozenset[str] | None
"""Project ids. None means all projects, and models without a project."""


class Permission(StrEnum):
    """The permissions that a call may need."""

    READ = "read"
    WRITE = "write"
    """Register, upload, import and change models."""
    PROMOTE = "promote"
    """Move and delete aliases."""
    ADMINISTER = "administer"
    """Delete models, and read and verify the audit log."""


class Role(StrEnum):
    """The roles, each with the permissions of the previous ones."""

    READER = "reader"
    WRITER = "writer"
    PROMOTER = "promoter"
    ADMIN = "admin"

    @property
    def permissions(self) -> frozenset[Permission]:
        """The permissions of the role."""
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
    """None: all projects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An authenticated caller."""

    actor: str
    """The actor of changes in the audit log."""
    grants: tuple[Grant, ...]
    expire_time: datetime | None = None
    """When the credentials expire. Aware, by the local clock. None: never."""


@dataclass(frozen=True, slots=True)
class Access:
    """What one call may access."""

    visible: Projects
    """The projects that the call may read. Models elsewhere do not exist for the call."""
    acting: Projects
    """The projects in which the call has its permission."""

    @property
    def is_restricted(self) -> bool:
        """Whether the access is limited to some projects."""
        return self.visible is not None or self.acting is not None

    def sees(self, project_id: str | None) -> bool:
        """Tell whether the call may read the models of a project."""
        return self.visible is None or project_id in self.visible

    def acts_in(self, project_id: str | None) -> bool:
        """Tell whether the call has its permission in a project."""
        return self.acting is None or project_id in self.acting


EVERYTHING = Access(visible=None, acting=None)
NOTHING = Access(visible=frozenset(), acting=frozenset())


def access_of(grants: Sequence[Grant], permission: Permission) -> Access | None:
    """Return the access of a call that needs a permission, or None if no grant has the permission."""
    acting = _projects(grants, permission)
    if acting is not None and not acting:
        return None
    return Access(visible=_projects(grants, Permission.READ), acting=acting)


def _projects(grants: Sequence[Grant], permission: Permission) -> Projects:
    projects = {grant.project_id for grant in grants if permission in grant.role.permissions}
    return None if None in projects else frozenset(project for project in projects if project is not None)


class Authenticator(Protocol):
    """Identifies callers by their credentials."""

    def __call__(self, token: str) -> Identity:
        """Return the identity of a bearer token. The result may be some seconds old.

        Raises:
            InvalidCredentialsError: The token is unknown, expired or revoked.
            UnavailableError: The database or the identity provider does not respond.
        """
