"""Lets calls in, or not: what each RPC takes, and whether its caller has it.

This is the one place for all RPCs, hence for HTTP as well, whose calls the gateway
makes RPCs of. In which projects a caller may act is decided further in, in
`services.confining`.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import grpc

from registry_service.domain.access import NOTHING, Access, Authenticator, Identity, Permission, access_of
from registry_service.domain.caller import Caller
from registry_service.domain.errors import (
    AccessDeniedError,
    InvalidCredentialsError,
    RoleMissingError,
    UnauthenticatedError,
    UnavailableError,
)

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]{1,8192}=*)", re.IGNORECASE | re.ASCII)
_PACKAGE = "modelregistry.v1."
_READ, _WRITE, _PROMOTE, _ADMINISTER = (
    Permission.READ,
    Permission.WRITE,
    Permission.PROMOTE,
    Permission.ADMINISTER,
)
_SERVICES: Mapping[str, Mapping[str, Permission]] = {
    f"{_PACKAGE}ModelService": {
        "RegisterModel": _WRITE,
        "GetModel": _READ,
        "ListModels": _READ,
        "UpdateModel": _WRITE,
        "DeleteModel": _ADMINISTER,
        "CompareModels": _READ,
        "ResolveModel": _READ,
        "GetLineage": _READ,
        "GetModelManifest": _READ,
    },
    f"{_PACKAGE}UploadService": {
        "CreateUpload": _WRITE,
        "WriteUpload": _WRITE,
        "WriteUploadContent": _WRITE,
        "GetUpload": _WRITE,
        "ListUploads": _WRITE,
        "CompleteUpload": _WRITE,
        "CancelUpload": _WRITE,
    },
    f"{_PACKAGE}ArtifactService": {
        "DownloadArtifact": _READ,
        "DownloadArtifactContent": _READ,
        "VerifyArtifact": _READ,
        "ListArtifactFiles": _READ,
        "DownloadArtifactFile": _READ,
        "DownloadArtifactFileContent": _READ,
    },
    f"{_PACKAGE}ModelGroupService": {
        "GetModelGroup": _READ,
        "ListModelGroups": _READ,
        "UpdateModelGroup": _WRITE,
        "DeleteModelGroup": _ADMINISTER,
    },
    f"{_PACKAGE}AliasService": {
        "SetAlias": _PROMOTE,
        "GetAlias": _READ,
        "ListAliases": _READ,
        "ListAliasMoves": _READ,
        "RollbackAlias": _PROMOTE,
        "DeleteAlias": _PROMOTE,
    },
    "modelregistry.geti.v1.GetiService": {"ListProjects": _READ, "GetProject": _READ, "ImportModels": _WRITE},
    f"{_PACKAGE}AuditService": {
        "ListAuditEvents": _ADMINISTER,
        "WatchAuditEvents": _READ,
        "VerifyAuditLog": _ADMINISTER,
    },
    "modelregistry.compat.v1.CompatService": {
        "RegisterModel": _WRITE,
        "ListModels": _READ,
        "GetModel": _READ,
        "UpdateModel": _WRITE,
        "DeleteModel": _ADMINISTER,
        "DownloadModelFiles": _READ,
        "ListProjects": _READ,
        "GetProject": _READ,
        "ImportModels": _WRITE,
    },
    # What there is to call is no secret, but strangers need not know.
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _READ},
}
REQUIRED: Mapping[str, Permission] = {
    f"/{service}/{method}": permission
    for service, methods in _SERVICES.items()
    for method, permission in methods.items()
}
"""What RPCs take. One that is neither here nor in OPEN or UNRESTRICTED is refused to everybody."""
OPEN = frozenset(
    {
        f"/{_PACKAGE}SystemService/GetHealth",
        f"/{_PACKAGE}SystemService/GetReadiness",
        f"/{_PACKAGE}SystemService/GetServerInfo",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
    }
)
"""RPCs that need no credentials: probes have none, and clients learn from them how to sign in."""
UNRESTRICTED = frozenset({f"/{_PACKAGE}SystemService/WhoAmI"})
"""RPCs that need credentials, but no permission: they touch nothing that has a project."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Decides who may call what."""

    authenticate: Authenticator

    def admit(self, method: str, context: grpc.ServicerContext, request_id: str) -> Caller:
        """Returns who makes a call.

        Raises:
            UnauthenticatedError: They do not show who they are.
            AccessDeniedError: They may not make it.
            UnavailableError: Nobody can tell at present.
        """
        if method in OPEN:
            return Caller(request_id=request_id, is_authenticated=True)
        identity = self.authenticate(_bearer_token(context))
        try:
            access = _access_to(method, identity)
        except AccessDeniedError as error:
            error.actor = identity.actor
            raise
        return Caller(
            actor=identity.actor,
            request_id=request_id,
            access=access,
            grants=identity.grants,
            expire_time=identity.expire_time,
            is_authenticated=True,
            expect_access=partial(self._expect_access, method, context),
            is_gone=partial(is_gone, context),
        )

    def _expect_access(self, method: str, context: grpc.ServicerContext) -> None:
        # While nobody can tell, what was true still is.
        with suppress(UnavailableError):
            self.admit(method, context, "")


def is_gone(context: grpc.ServicerContext) -> bool:
    """Return whether the client of a call waits for no answer any more."""
    return not context.is_active()


def _access_to(method: str, identity: Identity) -> Access:
    if method in UNRESTRICTED:
        return NOTHING
    if method not in REQUIRED:
        raise AccessDeniedError("No role allows this method.")
    access = access_of(identity.grants, REQUIRED[method])
    if access is None:
        raise RoleMissingError(REQUIRED[method].value)
    return access


def _bearer_token(context: grpc.ServicerContext) -> str:
    values = [value for key, value in context.invocation_metadata() if key == "authorization"]
    if not values:
        raise UnauthenticatedError
    # Of two, somebody on the way might have judged the other.
    found = _BEARER.fullmatch(values[0]) if len(values) == 1 and isinstance(values[0], str) else None
    if found is None:
        raise InvalidCredentialsError
    return found[1]
