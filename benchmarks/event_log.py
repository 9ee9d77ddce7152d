"""The cost of the event of a change: `python -m benchmarks.event_log` prints updates of models per second.

It uses `SqlDatabase` on its own PostgreSQL, which writes to disk at every
commit. Each client updates its own model, with the event and without.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import click

from registry_service.domain.models import Artifact, Model, utc_now
from registry_service.embedded.postgres import EmbeddedPostgres
from registry_service.storage.sql.database import SqlDatabase, SqlTransaction
from registry_service.storage.sql.schema import migrate
from tests.postgres_server import engine_of
from tests.temporary_folders import accessible_folder

SECONDS = 5.0


def model(number: int) -> Model:
    """Return a unique model."""
    now = utc_now()
    artifact = Artifact(file_name="m", media_type="m/m", size=1, sha256="0" * 64, file_url="", object_key=f"{number}")
    return Model(
        id=f"0123456789abcdef-{number}",
        name=f"model {number}",
        version="1",
        artifact=artifact,
        created_date="",
        last_updated_date="",
        create_time=now,
        update_time=now,
    )


def updates(database: SqlDatabase, model_id: str, deadline: float, *, with_event: bool) -> int:
    """Update a model repeatedly, and return the number of updates."""
    done = 0
    while time.monotonic() < deadline:
        with database.transaction() as transaction:
            transaction.models.update(model_id, lambda old: replace(old, revision=old.revision + 1))
            if not with_event:
                if not isinstance(transaction, SqlTransaction):
                    raise TypeError(transaction)
                transaction.events._recorded.clear()  # noqa: SLF001 - the measured cost
        done += 1
    return done


def measure(database: SqlDatabase, clients: int, *, with_event: bool) -> float:
    """Return the updates per second."""
    barrier = threading.Barrier(clients)

    def run(number: int) -> int:
        barrier.wait()
        return updates(database, f"0123456789abcdef-{number}", time.monotonic() + SECONDS, with_event=with_event)

    with ThreadPoolExecutor(clients) as threads:
        return sum(threads.map(run, range(clients))) / SECONDS


def main() -> None:
    """Measure, and print the results."""
    with accessible_folder(on_disk=True) as folder, EmbeddedPostgres(folder) as address:
        engine = engine_of(address, address.database)
        migrate(engine)
        database = SqlDatabase(engine)
        for number in range(8):
            with database.transaction() as transaction:
                transaction.models.add(model(number))
        for clients in (1, 8):
            for with_event in (False, True):
                rate = measure(database, clients, with_event=with_event)
                click.echo(f"{clients} clients, {'with' if with_event else 'without'} the event: {rate:.0f} updates/s")
        engine.dispose()


if __name__ == "__main__":
    main()
