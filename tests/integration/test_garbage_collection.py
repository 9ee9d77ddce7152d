"""Garbage collection and leases: all unreferenced bytes are removed, and none that are in use."""

# Failing methods ignore their arguments.
# ruff: noqa: ARG002

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
from modelregistry.v1 import model_pb2, model_service_pb2
from sqlalchemy import text

from registry_service.domain.caller import acting_as_registry
from registry_service.domain.errors import ArtifactStoreUnavailableError
from registry_service.services.garbage_collection import GarbageCollectionReport
from registry_service.services.verification import Finding
from registry_service.wiring import build_verification
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import Feed, WrappedStore, services_on, serving
from tests.stub_client import pieces, refused, registration, spec

ABORTED = grpc.StatusCode.ABORTED
MIB = 1024 * 1024
PAST = "now() - interval '1 second'"
NOTHING = GarbageCollectionReport(uploads=(), objects=(), failed=())


def collect(registry: RunningRegistry, **options: Any) -> GarbageCollectionReport:
    with acting_as_registry():
        return registry.parts.services.garbage_collector.collect(**options)


def leave_object(registry: RunningRegistry, key: str, due: str = PAST) -> None:
    """Leave behind the bytes and the row of a crash during a registration."""
    registry.execute(f"INSERT INTO unreferenced_objects VALUES ('{key}', {due})")
    registry.parts.store.put(key, b"left over")


def leave_parts(registry: RunningRegistry, key: str) -> None:
    registry.execute(f"INSERT INTO unreferenced_objects VALUES ('{key}', {PAST})")
    handle = registry.parts.store.begin(key)
    registry.parts.store.write_part(key, handle, number=1, offset=0, pieces=[b"left over"])


def keys(registry: RunningRegistry) -> set[str]:
    with registry.engine.connect() as connection:
        return set(connection.execute(text("SELECT object_key FROM unreferenced_objects")).scalars())


def nothing_is_left(registry: RunningRegistry) -> bool:
    return (registry.count("models"), registry.count("unreferenced_objects"), registry.objects()) == (0, 0, [])


class TestGarbageCollection:
    def test_due_objects_are_removed_and_others_are_kept(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        leave_object(registry, "artifacts/due")
        leave_parts(registry, "artifacts/parts")
        leave_object(registry, "artifacts/leased", "now() + interval '1 minute'")
        registry.execute(f"INSERT INTO unreferenced_objects VALUES ('artifacts/never-written', {PAST})")
        report = collect(registry)
        assert set(report.objects) == {"artifacts/due", "artifacts/parts", "artifacts/never-written"}
        assert report.failed == ()
        assert keys(registry) == {"artifacts/leased"}
        assert len(registry.objects()) == 2
        assert registry.client.verify(model.id).intact
        assert collect(registry) == NOTHING

    def test_abandoned_unfinished_objects_are_removed_and_those_with_a_writer_are_kept(
        self, registry: RunningRegistry
    ) -> None:
        model = registry.client.register()
        upload = registry.client.create_upload(name="under-way")
        registry.client.write_upload(upload.id, 0, bytes(8 * MIB))
        with registry.engine.connect() as connection:
            key = connection.execute(text("SELECT object_key FROM models")).scalar_one()
        registry.parts.store.begin(key)
        assert collect(registry) == NOTHING  # it may still have a writer
        with_lease = registry.parts.services.garbage_collector
        unfinished = replace(with_lease.unfinished, lease=timedelta(0))
        assert replace(with_lease, unfinished=unfinished).collect(dry_run=True).unfinished == (key,)
        verification = replace(build_verification(registry.parts), unfinished=unfinished)
        findings = [found for found in verification.run() if found.finding is not Finding.INTACT]
        assert [(found.finding, found.subject) for found in findings] == [(Finding.UNFINISHED, key)]
        assert not findings[0].finding.is_wrong
        assert replace(with_lease, unfinished=unfinished).collect().unfinished == (key,)
        assert list(unfinished.find()) == []
        assert registry.client.verify(model.id).intact
        assert registry.client.complete_upload(upload.id).artifact.size_bytes == 8 * MIB

    def test_more_objects_than_a_batch_are_removed(self, registry: RunningRegistry) -> None:
        registry.execute(
            f"INSERT INTO unreferenced_objects SELECT 'artifacts/' || n, {PAST} FROM generate_series(1, 350) AS n"
        )
        assert len(collect(registry).objects) == 350
        assert registry.count("unreferenced_objects") == 0

    def test_a_dry_run_reports_and_changes_nothing(self, registry: RunningRegistry) -> None:
        leave_object(registry, "artifacts/due")
        leave_object(registry, "artifacts/leased", "now() + interval '1 minute'")
        expired, alive = (registry.client.create_upload(name=name) for name in ("expired", "alive"))
        registry.client.write_upload(expired.id, 0, b"x")
        registry.execute(f"UPDATE uploads SET expire_time = {PAST} WHERE id = '{expired.id}'")
        before = registry.objects()
        expected = GarbageCollectionReport(uploads=(expired.id,), objects=("artifacts/due",), failed=())
        for _ in range(2):
            assert collect(registry, dry_run=True) == expected
        assert registry.objects() == before
        assert registry.count("uploads") == 2
        assert keys(registry) == {"artifacts/due", "artifacts/leased"}
        assert set(collect(registry).objects) > {"artifacts/due"}
        assert registry.client.get_upload(alive.id) == alive

    @pytest.mark.parametrize("number", [1, 250])
    def test_objects_that_the_store_does_not_delete_stay_due(self, registry: RunningRegistry, number: int) -> None:
        class FailingStore(WrappedStore):
            deletions = 0

            def delete(self, key: str) -> None:
                self.deletions += 1
                raise ArtifactStoreUnavailableError

        registry.execute(
            f"INSERT INTO unreferenced_objects SELECT 'artifacts/' || n, {PAST} FROM generate_series(1, {number}) AS n"
        )
        leave_object(registry, "artifacts/due")
        before = keys(registry)
        store = FailingStore(registry.parts.store)
        report = services_on(registry, store).garbage_collector.collect()
        assert report.objects == ()
        assert report.failed
        assert store.deletions == len(report.failed) == len(set(report.failed))
        assert keys(registry) == before
        assert len(registry.objects()) == 1
        assert len(collect(registry).objects) == number + 1
        assert nothing_is_left(registry)

    def test_one_object_that_cannot_be_deleted_does_not_stop_the_others(self, registry: RunningRegistry) -> None:
        class FailingStore(WrappedStore):
            def delete(self, key: str) -> None:
                if key.endswith("bad"):
                    raise ArtifactStoreUnavailableError
                super().delete(key)

        for name in ("a", "bad", "z"):
            leave_object(registry, f"artifacts/{name}")
        report = services_on(registry, FailingStore(registry.parts.store)).garbage_collector.collect()
        assert set(report.objects) == {"artifacts/a", "artifacts/z"}
        assert report.failed == ("artifacts/bad",)

    def test_garbage_collection_finishes_a_deletion_that_the_store_refused(self, registry: RunningRegistry) -> None:
        class FailingStore(WrappedStore):
            def delete(self, key: str) -> None:
                raise ArtifactStoreUnavailableError

        model = registry.client.register()
        with serving(registry, FailingStore(registry.parts.store)) as (_, client):
            client.delete(model.id)
        assert registry.client.all() == []
        assert len(registry.objects()) == 1
        assert len(collect(registry).objects) == 1
        assert nothing_is_left(registry)

    def test_concurrent_garbage_collections_remove_each_object_once(self, registry: RunningRegistry) -> None:
        for number in range(60):
            leave_object(registry, f"artifacts/{number}")
        with ThreadPoolExecutor(4) as threads:
            reports = [future.result() for future in [threads.submit(collect, registry) for _ in range(4)]]
        collected = [key for report in reports for key in report.objects]
        assert sorted(collected) == sorted(f"artifacts/{number}" for number in range(60))
        assert nothing_is_left(registry)

    def test_a_server_collects_garbage_by_itself(self, registry: RunningRegistry) -> None:
        leave_object(registry, "artifacts/due")
        with serving(registry, gc_interval_seconds=0.05):
            eventually(lambda: nothing_is_left(registry))


class TestLeases:
    @pytest.mark.parametrize("size", [1, 20 * MIB])
    def test_a_registration_whose_object_was_collected_fails_and_leaves_nothing(
        self, registry: RunningRegistry, size: int
    ) -> None:
        feed = Feed(*registration(spec(), pieces(bytes(size))))
        call = registry.client.models.RegisterModel.future(feed)
        eventually(lambda: registry.count("unreferenced_objects") == 1)
        if size > 1:
            eventually(lambda: any(path.stat().st_size >= 8 * MIB for path in registry.objects()))
        registry.execute(f"UPDATE unreferenced_objects SET due_time = {PAST}")
        assert len(collect(registry).objects) == 1
        for piece in pieces(bytes(size)):
            feed.send(model_service_pb2.RegisterModelRequest(chunk=piece))
        feed.end()
        with refused(ABORTED, "LEASE_LOST"):
            call.result()
        assert nothing_is_left(registry)
        registry.client.register()

    @pytest.mark.parametrize("size", [1, 20 * MIB])
    def test_a_registration_without_its_lease_fails_and_leaves_nothing(
        self, registry: RunningRegistry, size: int
    ) -> None:
        feed = Feed(*registration(spec(), pieces(bytes(size))))
        call = registry.client.models.RegisterModel.future(feed)
        eventually(lambda: registry.count("unreferenced_objects") == 1)
        registry.execute("DELETE FROM unreferenced_objects")
        feed.end()
        with refused(ABORTED, "LEASE_LOST"):
            call.result()
        assert nothing_is_left(registry)

    def test_received_bytes_renew_the_lease(self, start_registry: StartRegistry) -> None:
        registry = start_registry(registration_lease_seconds=1.5, stream_idle_seconds=1)
        feed = Feed(*registration(spec(), [b"x"]))
        call = registry.client.models.RegisterModel.future(feed)
        eventually(lambda: registry.count("unreferenced_objects") == 1)
        pause = threading.Event()
        for _ in range(16):
            pause.wait(0.25)
            feed.send(model_service_pb2.RegisterModelRequest(chunk=b"x"))
            assert collect(registry) == NOTHING
        feed.end()
        assert call.result().model.artifact.size_bytes == 17
        assert registry.client.verify(call.result().model.id).intact

    def test_registrations_during_garbage_collection_stay_whole(self, start_registry: StartRegistry) -> None:
        # The leases are so short that some registrations lose theirs.
        registry = start_registry(registration_lease_seconds=0.011, stream_idle_seconds=0.01)
        stop = threading.Event()

        def collect_repeatedly() -> None:
            while not stop.is_set():
                assert not collect(registry).failed

        def register(number: int) -> model_pb2.Model | grpc.StatusCode:
            try:
                return registry.client.register(bytes(1 + number % 3 * 5 * MIB), name=f"n{number}")
            except grpc.RpcError as error:
                code: grpc.StatusCode = error.code()
                return code

        with ThreadPoolExecutor(6) as threads:
            collectors = [threads.submit(collect_repeatedly) for _ in range(2)]
            try:
                results = list(threads.map(register, range(40)))
            finally:
                stop.set()
            for collector in collectors:
                collector.result()
        models = [result for result in results if isinstance(result, model_pb2.Model)]
        codes = {result for result in results if isinstance(result, grpc.StatusCode)}
        # UNAVAILABLE: the file was removed during the write.
        assert codes <= {ABORTED, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        assert {model.id for model in registry.client.all()} == {model.id for model in models}
        for model in models:
            assert registry.client.verify(model.id).intact
        eventually(lambda: collect(registry) is not None and registry.count("unreferenced_objects") == 0)
        assert len(registry.objects()) == len(models)
