"""TLS to Postgres and S3: which certificates the server verifies, and its errors."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from registry_service.embedded.postgres import PostgresAddress
from tests.products import COMMAND, environment, running_server, s3_settings
from tests.s3_server import Certificates, S3Server, make_certificates, new_bucket_name, running_s3
from tests.temporary_folders import accessible_folder
from tests.tls_postgres import TlsFront, own_tls_postgres, tls_front
from tests.watch_client import Watch

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates") / "servers")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of another CA."""
    return make_certificates(tmp_path_factory.mktemp("certificates") / "others")


@pytest.fixture
def front(postgres: PostgresAddress, certificates: Certificates) -> Iterator[TlsFront]:
    with tls_front(postgres, certificates) as front:
        yield front


@pytest.fixture(scope="module")
def tls_s3(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3"), certificates) as server:
        yield server


@pytest.fixture
def settings(postgres: PostgresAddress, empty_database: Engine, tmp_path: Path) -> dict[str, object]:
    """Settings of an empty database, without its host and port, and of an artifact folder."""
    return {
        "psql_hostname": "localhost",
        "psql_database": empty_database.url.database,
        "mr_user_name": postgres.user,
        "artifact_store": "local",
        "artifact_dir": tmp_path / "artifacts",
        "startup_timeout_seconds": 1,
    }


def refused_start(command: str, settings: dict[str, object]) -> str:
    """Return the error of a command that cannot reach a dependency."""
    answer = subprocess.run(
        [*COMMAND, command], env=environment(**settings), capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 1
    said = answer.stderr.partition("\nError: ")[2] or answer.stderr
    assert "Traceback" not in said
    return said


def migrated(settings: dict[str, object]) -> tuple[int, str]:
    """Run `migrate`, and return the exit code and the warnings."""
    env = environment(**settings, min_log_level="WARNING")
    answer = subprocess.run([*COMMAND, "migrate"], env=env, capture_output=True, text=True, timeout=60, check=False)
    return answer.returncode, answer.stderr


# ---- Postgres ----


def test_all_connections_to_postgres_use_verified_tls(
    settings: dict[str, object], front: TlsFront, certificates: Certificates, tmp_path: Path
) -> None:
    settings |= {"psql_port": front.port, "psql_sslmode": "verify-full", "psql_ca_cert": certificates.ca}
    # A migration, the pool, and the connection for notifications.
    with running_server(tmp_path, settings | {"startup_timeout_seconds": 30}) as product:
        with Watch(product.client) as watch:
            watch.message()  # the watch has begun
            model = product.client.register(b"over TLS", name="secure")
            assert watch.event().model_id == model.id
        assert product.client.names() == ["secure"]
    assert len(front.encrypted) > 2
    assert all(front.encrypted)


@pytest.mark.parametrize("command", ["migrate", "serve"])
def test_a_postgres_of_another_ca_is_refused_at_the_start(
    settings: dict[str, object], front: TlsFront, others: Certificates, command: str
) -> None:
    settings |= {"psql_port": front.port, "psql_sslmode": "verify-full", "psql_ca_cert": others.ca}
    said = refused_start(command, settings)
    assert said.startswith("The database does not respond")
    assert "certificate verify failed" in said
    assert front.encrypted == []


def test_a_postgres_of_another_name_is_refused_at_the_start(
    settings: dict[str, object], front: TlsFront, certificates: Certificates
) -> None:
    settings |= {"psql_port": front.port, "psql_hostname": "127.0.0.2", "psql_ca_cert": certificates.ca}
    said = refused_start("migrate", settings | {"psql_sslmode": "verify-full"})
    assert 'does not match host name "127.0.0.2"' in said


def test_a_postgres_without_tls_is_refused_if_tls_is_required(
    settings: dict[str, object], postgres: PostgresAddress, certificates: Certificates
) -> None:
    with tls_front(postgres, None) as front:
        settings |= {"psql_port": front.port, "psql_sslmode": "verify-full", "psql_ca_cert": certificates.ca}
        assert "server does not support SSL" in refused_start("migrate", settings)
        assert front.encrypted == []


def test_a_client_certificate_is_sent_to_postgres(
    settings: dict[str, object], postgres: PostgresAddress, certificates: Certificates, others: Certificates
) -> None:
    with tls_front(postgres, certificates, client_ca=others.ca) as front:
        settings |= {"psql_port": front.port, "psql_sslmode": "verify-full", "psql_ca_cert": certificates.ca}
        said = refused_start("migrate", settings)
        assert "certificate required" in said
        own = {"psql_client_cert": others.cert, "psql_client_private_key": others.key}
        assert migrated(settings | own) == (0, "")
        assert front.encrypted == [True]


def test_a_postgres_that_terminates_tls_itself_is_verified_alike(
    settings: dict[str, object], certificates: Certificates, others: Certificates
) -> None:
    with accessible_folder() as folder, own_tls_postgres(folder, certificates, others) as port:
        settings |= {"psql_port": port, "psql_database": "postgres", "psql_sslmode": "verify-full"}
        settings |= {"psql_client_cert": others.cert, "psql_client_private_key": others.key}
        assert "certificate verify failed" in refused_start("migrate", settings | {"psql_ca_cert": others.ca})
        assert migrated(settings | {"psql_ca_cert": certificates.ca}) == (0, "")
        del settings["psql_client_cert"], settings["psql_client_private_key"]
        said = refused_start("migrate", settings | {"psql_ca_cert": certificates.ca})
        assert "connection requires a valid client certificate" in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("psql_ca_cert", "/nowhere/ca.crt", "PSQL_CA_CERT: "),
        ("psql_client_cert", "/dev/null", "PSQL_CLIENT_CERT: "),
        ("psql_client_cert", __file__, "PSQL_CLIENT_CERT, PSQL_CLIENT_PRIVATE_KEY: set both or neither"),
        ("psql_ca_cert", __file__, "PSQL_CA_CERT: requires PSQL_SSLMODE=verify-full or PSQL_SSLMODE=verify-ca"),
    ],
)
def test_an_invalid_setting_is_named(settings: dict[str, object], name: str, value: str, said: str) -> None:
    assert said in refused_start("migrate", settings | {name: value})


# ---- S3 ----


def test_artifacts_are_stored_over_verified_tls(
    settings: dict[str, object], postgres: PostgresAddress, tls_s3: S3Server, certificates: Certificates, tmp_path: Path
) -> None:
    s3 = s3_settings(postgres, str(settings["psql_database"]), tls_s3, new_bucket_name())
    with running_server(tmp_path, s3 | {"minio_secure": True, "minio_ca_cert": certificates.ca}) as product:
        data = bytes(range(256)) * (9 * MIB // 256)
        model = product.client.register(data, name="secure")
        assert product.client.download(model.id) == data


def test_an_s3_of_another_ca_is_refused_at_the_start(
    settings: dict[str, object], postgres: PostgresAddress, tls_s3: S3Server, others: Certificates
) -> None:
    s3 = s3_settings(postgres, str(settings["psql_database"]), tls_s3, new_bucket_name())
    s3 |= {"minio_secure": True, "minio_ca_cert": others.ca, "startup_timeout_seconds": 1}
    said = refused_start("serve", s3)
    assert said.startswith("The artifact store does not respond")
    assert "certificate verify failed" in said
