"""A replica with a wrong clock: stored and compared times come from the database's clock."""

import logging
import time
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from modelregistry.v1 import system_service_pb2
from sqlalchemy import Engine, text

from registry_service.domain import models as domain_models
from registry_service.domain.access import Grant, Role
from registry_service.domain.errors import InvalidCredentialsError
from registry_service.services.authentication import TokenAuthenticator
from registry_service.services.tokens import TokenService
from registry_service.storage.sql import connection as connection_module
from registry_service.storage.sql.database import SqlDatabase
from tests.polling import eventually
from tests.registry import RunningRegistry
from tests.streams import serving
from tests.stub_client import Client

TWO_DAYS = timedelta(days=2)


def database_time(engine: Engine) -> datetime:
    with engine.connect() as connection:
        found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return found


@pytest.fixture(params=[-TWO_DAYS, TWO_DAYS], ids=["behind", "ahead"])
def offset(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """The offset of the clock that Python code reads."""
    off: timedelta = request.param
    right = datetime

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Wrong":
            found = right.now(tz) + off
            return cls.fromtimestamp(found.timestamp(), tz)

    monkeypatch.setattr(domain_models, "datetime", Wrong)
    monkeypatch.setattr(connection_module, "time", clock_off_by(off))
    return off


def clock_off_by(off: timedelta) -> SimpleNamespace:
    """Replace the module `time` by one with this offset."""
    return SimpleNamespace(time=lambda: time.time() + off.total_seconds(), monotonic=time.monotonic)


class Between:
    """Asserts that a time lies within the block, by the database's clock."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._start = database_time(engine)

    def has(self, *found: Timestamp) -> None:
        end = database_time(self._engine)
        for one in found:
            assert self._start <= one.ToDatetime(tzinfo=UTC) <= end


@pytest.mark.usefixtures("offset")
def test_models_have_the_databases_time(registry: RunningRegistry, client: Client) -> None:
    now = Between(registry.engine)
    model = client.register(version="1")
    changed = client.update(model.id, score=0.5)
    upload = client.create_upload(version="2")
    client.write_upload(upload.id, 0, b"bytes")
    now.has(model.create_time, model.update_time, changed.update_time, client.complete_upload(upload.id).create_time)
    now.has(client.manifest(model.id).make_time)


@pytest.mark.usefixtures("offset")
def test_an_upload_expires_by_the_databases_time(registry: RunningRegistry, client: Client) -> None:
    ttl = registry.parts.services.policy.upload_ttl
    before = database_time(registry.engine)
    upload = client.create_upload()
    written = client.write_upload(upload.id, 0, b"bytes")
    after = database_time(registry.engine)
    for found in (upload, written, client.get_upload(upload.id)):
        assert before + ttl <= found.expire_time.ToDatetime(tzinfo=UTC) <= after + ttl
    registry.parts.services.garbage_collector.collect()
    assert client.get_upload(upload.id).committed_size == 5


@pytest.mark.usefixtures("offset")
def test_a_validated_move_has_the_databases_time(registry: RunningRegistry, client: Client) -> None:
    now = Between(registry.engine)
    now.has(client.set_alias(client.register().id, validate_only=True).alias.update_time)


@pytest.mark.usefixtures("offset")
def test_a_token_expires_by_the_databases_time(engine: Engine) -> None:
    database = SqlDatabase(engine)
    tokens = TokenService(database)
    token, secret = tokens.create(Grant(Role.READER), name="short", expires="1d")
    assert abs(token.create_time - database_time(engine)) < timedelta(minutes=1)
    authenticate = TokenAuthenticator(database)
    assert authenticate(secret).actor == "token:short"
    with engine.begin() as connection:
        connection.execute(text("UPDATE tokens SET create_time = '2020-01-01Z', expire_time = clock_timestamp()"))
    with pytest.raises(InvalidCredentialsError):
        authenticate(secret)
    assert [found.is_valid for found in tokens.list()] == [False]


def test_a_wrong_clock_is_logged_once_and_shown_by_the_readiness(
    registry: RunningRegistry, offset: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    request = system_service_pb2.GetReadinessRequest()
    with serving(registry, health_interval_seconds=0.02) as (_, client), caplog.at_level(logging.INFO):
        found = client.system.GetReadiness(request).clock_skew.ToTimedelta()
        assert abs(found - offset) < timedelta(seconds=60)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection_module, "time", clock_off_by(timedelta()))
            eventually(lambda: not client.system.GetReadiness(request).HasField("clock_skew"))
    told = [record.getMessage() for record in caplog.records if "the clock of this machine" in record.getMessage()]
    direction = "ahead of" if offset > timedelta() else "behind"
    assert [direction in message for message in told] in ([True, False], [False])


def test_a_right_clock_is_not_logged(client: Client) -> None:
    assert not client.system.GetReadiness(system_service_pb2.GetReadinessRequest()).HasField("clock_skew")
