"""Errors of authentication, authorization and tokens."""

from registry_service.domain.errors.base import NotFoundError, PermissionDeniedError, RegistryError


class UnauthenticatedError(RegistryError):
    """The call has no credentials."""

    reason = "UNAUTHENTICATED"

    def __init__(self, message: str = "Missing bearer token in the `Authorization` header.") -> None:
        super().__init__(message)


class InvalidCredentialsError(UnauthenticatedError):
    """The credentials are invalid, expired or revoked. All causes share one message; the log names the cause."""

    reason = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("Invalid bearer token.")


class AccessDeniedError(PermissionDeniedError):
    """The caller lacks the permission."""

    reason = "ACCESS_DENIED"
    actor: str = ""
    """The caller, for the log. Empty if the interceptor admitted the call."""


class RoleMissingError(AccessDeniedError):
    """The caller has no role with this permission in any project."""

    reason = "ROLE_MISSING"

    def __init__(self, permission: str) -> None:
        super().__init__(f"You have no role with the permission {permission!r}.", permission=permission)


class ProjectDeniedError(AccessDeniedError):
    """The caller has this permission in other projects only."""

    reason = "PROJECT_DENIED"

    def __init__(self, project_id: str | None) -> None:
        where = "outside of all projects" if project_id is None else f"in the project {project_id!r}"
        super().__init__(f"You have no role that allows this call {where}.", project_id=project_id or "")


class TokenNotFoundError(NotFoundError):
    """No token has this id or name."""

    reason = "TOKEN_NOT_FOUND"

    def __init__(self, token_id: str) -> None:
        super().__init__(f"No token has the id or name {token_id!r}.", token_id=token_id)


class TokenExistsError(RegistryError):
    """Another token has this name, or had it before it was revoked."""

    reason = "TOKEN_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"A token has, or had, the name {name!r}.", name=name)
