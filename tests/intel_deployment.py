"""An Intel deployment, from a dump of a real one: its database and its bucket."""

import hashlib
import io
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from minio import Minio

from registry_service.embedded.postgres import PostgresAddress
from tests.postgres_server import create_database, drop_database
from tests.s3_server import S3Endpoint, S3Server, new_bucket_name

FOLDER = Path(__file__).parent / "data" / "intel_deployment"
OBJECTS = {path.relative_to(FOLDER / "objects").as_posix(): path for path in (FOLDER / "objects").glob("*/*")}
TWIN = "put-plain-000000003"
"""A model like put-other-000000002 in project, name, version and precision, except for the case of the precision."""
IDS = sorted(key.partition("/")[0] for key in OBJECTS)


@dataclass
class IntelDeployment:
    """The deployment to import, which an import must not change."""

    address: PostgresAddress
    database: str
    endpoint: S3Endpoint
    bucket: str

    @property
    def s3(self) -> Minio:
        return Minio(
            f"{self.endpoint.host}:{self.endpoint.port}",
            access_key=self.endpoint.access_key,
            secret_key=self.endpoint.secret_key,
            secure=False,
            region="us-east-1",
        )

    def execute(self, statement: str, *values: object) -> list[Any]:
        with closing(
            psycopg.connect(
                host=str(self.address.socket_dir),
                port=self.address.port,
                user=self.address.user,
                dbname=self.database,
                autocommit=True,
            )
        ) as connection:
            cursor = connection.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def set_tag(self, model_id: str, key: str, value: str | None) -> None:
        self.execute("DELETE FROM registered_model_tags WHERE name = %s AND key = %s", model_id, key)
        if value is not None:
            self.execute("INSERT INTO registered_model_tags VALUES (%s, %s, %s)", key, value, model_id)

    def state(self) -> object:
        """Return the whole content of the deployment."""
        tables = (
            "alembic_version",
            "registered_models",
            "registered_model_tags",
            "model_versions",
            "registered_model_aliases",
        )
        rows = {table: self.execute(f"SELECT * FROM {table} ORDER BY {table}::text") for table in tables}
        objects = [
            (found.object_name, found.etag, found.size, found.last_modified)
            for found in self.s3.list_objects(self.bucket, recursive=True)
        ]
        return rows, objects

    def settings(self) -> dict[str, object]:
        """Return the settings of an import for the database and the bucket."""
        return {
            "source_psql_hostname": str(self.address.socket_dir),
            "source_psql_port": self.address.port,
            "source_psql_database": self.database,
            "source_psql_user": self.address.user,
            "source_minio_bucket_name": self.bucket,
        }

    def s3_settings(self) -> dict[str, object]:
        """Return the settings of an import for an S3 other than the registry's own."""
        return {
            "source_minio_hostname": self.endpoint.host,
            "source_minio_server_port": self.endpoint.port,
            "source_minio_access_key": self.endpoint.access_key,
            "source_minio_secret_key": self.endpoint.secret_key,
        }

    def keep_models(self, *model_ids: str) -> None:
        """Delete all other models from the database."""
        self.execute("DELETE FROM registered_model_tags WHERE name <> ALL (%s)", list(model_ids))
        self.execute("DELETE FROM registered_models WHERE name <> ALL (%s)", list(model_ids))

    def restore_objects(self) -> None:
        """Make the bucket contain exactly the objects of the dump."""
        s3 = self.s3
        etags = {found.object_name: found.etag for found in s3.list_objects(self.bucket, recursive=True)}
        for key in etags.keys() - OBJECTS.keys():
            s3.remove_object(self.bucket, str(key))
        for key, path in OBJECTS.items():
            data = path.read_bytes()
            if etags.get(key) != hashlib.md5(data, usedforsecurity=False).hexdigest():
                s3.put_object(self.bucket, key, io.BytesIO(data), len(data))


@pytest.fixture(scope="session")
def intel_template(postgres: PostgresAddress, s3_server: S3Server) -> IntelDeployment:
    """A deployment whose database tests copy, and whose bucket they share. Otherwise each test would fill its own."""
    deployment = IntelDeployment(postgres, "intel", s3_server.endpoint, new_bucket_name())
    create_database(postgres, deployment.database, "template0")
    deployment.execute((FOLDER / "database.sql").read_text(encoding="utf-8"))
    deployment.s3.make_bucket(deployment.bucket)
    deployment.restore_objects()
    return deployment


@contextmanager
def copied(template: IntelDeployment) -> Iterator[IntelDeployment]:
    """Copy the database of a deployment. In the end, drop the copy and restore the bucket."""
    deployment = replace(template, database=f"{template.database}_{uuid.uuid4().hex[:12]}")
    create_database(deployment.address, deployment.database, template.database)
    yield deployment
    drop_database(deployment.address, deployment.database)
    deployment.restore_objects()


@pytest.fixture
def intel(intel_template: IntelDeployment) -> Iterator[IntelDeployment]:
    """A deployment with the content of the dump."""
    with copied(intel_template) as deployment:
        yield deployment
