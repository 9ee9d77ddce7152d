"""Push, find, promote and pull models of a Model Registry.

Names are imported when they are first used, so that the command line and its completion start without gRPC.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modelreg._version import __version__

if TYPE_CHECKING:
    from modelreg import aio
    from modelreg._sync.listing import Listing
    from modelreg._sync.registry import Registry
    from modelreg.aliases import (
        Alias,
        AliasMove,
        AliasTarget,
        Bound,
        Promotion,
        RequirementCheck,
        Requirements,
    )
    from modelreg.audit import Event, LogPosition, LogVerification
    from modelreg.cache import Cache, CacheEntry, CacheUsage
    from modelreg.comparisons import Comparison
    from modelreg.errors import (
        AlreadyExists,
        Ambiguous,
        Conflict,
        ConnectionFailed,
        DeadlineExceeded,
        FieldViolation,
        IntegrityError,
        InternalError,
        InvalidArgument,
        NotCached,
        NotFound,
        PermissionDenied,
        PreconditionFailed,
        Quarantined,
        RateLimited,
        RegistryError,
        SourceChanged,
        Unauthenticated,
        Unavailable,
        Unsupported,
    )
    from modelreg.lineage import Lineage, LineageEdge, LineageNode
    from modelreg.models import Artifact, Model, ModelGroup, Signature, Tensor
    from modelreg.provenance import Dataset, Provenance
    from modelreg.server import ArtifactFile, Identity, ServerInfo, Upload, Verification

__all__ = [
    "Alias",
    "AliasMove",
    "AliasTarget",
    "AlreadyExists",
    "Ambiguous",
    "Artifact",
    "ArtifactFile",
    "Bound",
    "Cache",
    "CacheEntry",
    "CacheUsage",
    "Comparison",
    "Conflict",
    "ConnectionFailed",
    "Dataset",
    "DeadlineExceeded",
    "Event",
    "FieldViolation",
    "Identity",
    "IntegrityError",
    "InternalError",
    "InvalidArgument",
    "Lineage",
    "LineageEdge",
    "LineageNode",
    "Listing",
    "LogPosition",
    "LogVerification",
    "Model",
    "ModelGroup",
    "NotCached",
    "NotFound",
    "PermissionDenied",
    "PreconditionFailed",
    "Promotion",
    "Provenance",
    "Quarantined",
    "RateLimited",
    "Registry",
    "RegistryError",
    "RequirementCheck",
    "Requirements",
    "ServerInfo",
    "Signature",
    "SourceChanged",
    "Tensor",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "Upload",
    "Verification",
    "__version__",
    "aio",
]

_MODULES = {
    "modelreg._sync.listing": ("Listing",),
    "modelreg._sync.registry": ("Registry",),
    "modelreg.aliases": (
        "Alias",
        "AliasMove",
        "AliasTarget",
        "Bound",
        "Promotion",
        "RequirementCheck",
        "Requirements",
    ),
    "modelreg.audit": ("Event", "LogPosition", "LogVerification"),
    "modelreg.cache": (
        "Cache",
        "CacheEntry",
        "CacheUsage",
    ),
    "modelreg.comparisons": ("Comparison",),
    "modelreg.errors": (
        "AlreadyExists",
        "Ambiguous",
        "Conflict",
        "ConnectionFailed",
        "DeadlineExceeded",
        "FieldViolation",
        "IntegrityError",
        "InternalError",
        "InvalidArgument",
        "NotCached",
        "NotFound",
        "PermissionDenied",
        "PreconditionFailed",
        "Quarantined",
        "RateLimited",
        "RegistryError",
        "SourceChanged",
        "Unauthenticated",
        "Unavailable",
        "Unsupported",
    ),
    "modelreg.lineage": (
        "Lineage",
        "LineageEdge",
        "LineageNode",
    ),
    "modelreg.models": (
        "Artifact",
        "Model",
        "ModelGroup",
        "Signature",
        "Tensor",
    ),
    "modelreg.provenance": (
        "Dataset",
        "Provenance",
    ),
    "modelreg.server": (
        "ArtifactFile",
        "Identity",
        "ServerInfo",
        "Upload",
        "Verification",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "aio":
        return importlib.import_module("modelreg.aio")
    if name not in _HOMES:
        raise AttributeError(f"module 'modelreg' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
