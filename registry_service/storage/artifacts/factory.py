"""The artifact store that the settings select.

To add a store:

1. Write its adapter beside this module: a subclass of `ListableArtifactStore`,
   whose docstrings say what each method promises.
2. Add its name and its parameters to `settings.artifacts`, and its case to
   `build_artifact_store`. mypy reports a name without a case.
3. Run the contract suite on it: subclass `ArtifactStoreContract` of
   tests/contracts/artifact_store.py and supply the fixture `store`.

No other module names an adapter (tests/unit/test_artifact_store_factory.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from registry_service.domain.artifact_store import ListableArtifactStore
from registry_service.storage.artifacts.local import LocalArtifactStore

if TYPE_CHECKING:
    from registry_service.settings import ArtifactSettings


def build_artifact_store(
    settings: "ArtifactSettings", wait_for: Callable[[Callable[[], None]], None]
) -> ListableArtifactStore:
    """Return the store, and create its folder or bucket if it is missing.

    Args:
        settings: Select the store and give its parameters.
        wait_for: Calls a function until it succeeds, for a store that starts later than this process.

    Raises:
        ArtifactStoreUnavailableError: The store does not answer as long as `wait_for` waits.
    """
    match settings.artifact_store:
        case "local":
            if settings.artifact_dir is None:
                raise AssertionError("ArtifactSettings requires ARTIFACT_DIR")
            return LocalArtifactStore(settings.artifact_dir, reserve_bytes=settings.disk_reserve_bytes)
        case "s3":
            # The SDK takes a while to import, which other commands need not wait for.
            from registry_service.storage.artifacts.s3 import S3ArtifactStore  # noqa: PLC0415
            from registry_service.storage.artifacts.s3_connection import S3Options  # noqa: PLC0415

            host, access_key, secret_key = settings.minio_hostname, settings.minio_access_key, settings.minio_secret_key
            if host is None or access_key is None or secret_key is None:
                raise AssertionError("ArtifactSettings requires MINIO_HOSTNAME, MINIO_ACCESS_KEY and MINIO_SECRET_KEY")
            store = S3ArtifactStore.connect(
                S3Options(
                    host=host,
                    port=settings.minio_server_port,
                    access_key=access_key,
                    secret_key=secret_key.get_secret_value(),
                    bucket=settings.minio_bucket_name,
                    region=settings.minio_region,
                    secure=settings.minio_secure,
                    ca_cert=settings.minio_ca_cert,
                )
            )
            wait_for(store.ensure_bucket)
            return store
        case _:
            assert_never(settings.artifact_store)


def build_backup_store(folder: Path) -> ListableArtifactStore:
    """Return the store of the objects in a backup's folder."""
    return LocalArtifactStore(folder / "objects")
