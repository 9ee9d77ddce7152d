"""Push, find, promote and pull models of a Model Registry."""

from modelreg import aio
from modelreg._sync.listing import Listing
from modelreg._sync.registry import Registry
from modelreg._version import __version__
from modelreg.aliases import (
    Alias,
    AliasMove,
    AliasTarget,
    Bound,
    Promotion,
    RequirementCheck,
    Requirements,
)
from modelreg.audit import Event
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
