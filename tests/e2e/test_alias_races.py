"""Concurrent alias moves by clients of several servers: one wins, and no alias points to a missing model."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from modelregistry.v1 import alias_pb2, model_pb2
from modelregistry.v1 import alias_service_pb2 as pb
from sqlalchemy import Engine, text
from typing_extensions import override

from registry_service.domain.events import GENESIS_HASH, Event, LogHead
from registry_service.domain.vocabulary import Action
from registry_service.embedded.postgres import PostgresAddress
from registry_service.storage.sql.database import SqlDatabase
from tests.polling import eventually
from tests.ports import free_port
from tests.postgres_server import engine_of
from tests.products import Command, environment
from tests.stub_client import Client
from tests.temporary_folders import accessible_folder

SERVERS = 3
CLIENTS = 12


class Racer(Client):
    """A client that registers versions of one name."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(address)
        self.name = name

    @override
    def register(self, data: bytes = b"weights", **fields: Any) -> model_pb2.Model:
        return super().register(data, **{"name": self.name} | fields)


@pytest.fixture(scope="module")
def addresses(postgres: PostgresAddress, module_database_name: str) -> Iterator[list[str]]:
    """The addresses of servers on one database."""
    with ExitStack() as stack:
        folder = stack.enter_context(accessible_folder())
        ports = [free_port() for _ in range(SERVERS)]
        for port in ports:
            settings = {
                "psql_hostname": postgres.socket_dir,
                "psql_port": postgres.port,
                "psql_database": module_database_name,
                "mr_user_name": postgres.user,
                "psql_pool_size": 8,
                "artifact_store": "local",
                "artifact_dir": folder / "artifacts",
                "grpc_port": port,
            }
            server = Command(["serve"], environment(**settings), folder / f"{port}.log")
            stack.callback(server.close)
            server.start()
        yield [f"127.0.0.1:{port}" for port in ports]


@pytest.fixture
def clients(addresses: list[str]) -> Iterator[list[Racer]]:
    """Clients of all servers, each with its own connection, and of a name that no other test uses."""
    name = f"yolo-{uuid.uuid4()}"
    with ExitStack() as stack:
        found = [Racer(addresses[i % SERVERS], name) for i in range(CLIENTS)]
        for client in found:
            stack.callback(client.close)
            eventually(partial(answers, client), 60, "a server")
        yield found


@pytest.fixture
def engine(postgres: PostgresAddress, module_database_name: str) -> Iterator[Engine]:
    """Connections to the database of the servers."""
    engine = engine_of(postgres, module_database_name)
    yield engine
    engine.dispose()


def answers(client: Racer) -> bool:
    return client.all(f'name = "{client.name}"') == []


def together(clients: Sequence[Racer], call: Callable[[int, Racer], Any]) -> list[Any]:
    """Let all clients call at the same time, and return each answer or the reason of its refusal."""
    barrier = threading.Barrier(len(clients))

    def one(i: int, client: Racer) -> Any:
        barrier.wait()
        try:
            return call(i, client)
        except grpc.RpcError as error:
            return reason(error)

    with ThreadPoolExecutor(len(clients)) as threads:
        return list(threads.map(one, range(len(clients)), clients))


def reason(error: Any) -> str:
    status = rpc_status.from_call(error)
    assert status is not None, error
    for packed in status.details:
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info):
            return str(info.reason)
    raise AssertionError(status)


def set_alias(client: Racer, model_id: str, **fields: Any) -> pb.SetAliasResponse:
    return client.set_alias(model_id, model_group_id=group_id(client), **fields)


def group_id(client: Racer) -> str:
    """Return the id of the client's group, which exists from the first model on."""
    return client.all_groups(f'name = "{client.name}"', show_empty=True)[0].id


def step_back(client: Racer) -> pb.RollbackAliasResponse:
    """Roll back from the state that the client sees."""
    named: dict[str, Any] = {"model_group_id": group_id(client), "alias": "production"}
    etag = client.aliases.GetAlias(pb.GetAliasRequest(**named)).etag
    return client.aliases.RollbackAlias(pb.RollbackAliasRequest(**named, etag=etag))


def moves(client: Racer) -> list[alias_pb2.AliasMove]:
    """Return the history, oldest move first."""
    request = pb.ListAliasMovesRequest(alias="production", model_group_id=group_id(client), page_size=1000)
    return list(client.aliases.ListAliasMoves(request).alias_moves)[::-1]


def assert_agreement(client: Racer, engine: Engine) -> list[Event]:
    """Assert that history and audit log agree, and that aliases point to models of their group or to none."""
    with SqlDatabase(engine).transaction() as transaction:
        events = [
            event
            for event in transaction.events.after(0, limit=1000)
            if event.alias and event.group_key.name == client.name
        ]
        good, broken = transaction.events.verify(LogHead(sequence=0, hash=GENESIS_HASH), limit=10_000)
        assert broken is None
        assert good == transaction.events.head()
    history = moves(client) if events else []
    assert [move.revision for move in history] == list(range(1, len(history) + 1))
    assert [move.request_id for move in history] == [event.request_id for event in events]
    for move, event in zip(history, events, strict=True):
        assert move.after.model_id == (event.after or {}).get("model_id", "")
        assert move.before.model_id == (event.before or {}).get("model_id", "")
    assert [move.before for move in history[1:]] == [move.after for move in history[:-1]]
    with engine.connect() as connection:
        astray = """
            SELECT count(*) FROM aliases a LEFT JOIN models m ON m.id = a.model_id
            WHERE a.model_id IS NOT NULL AND m.name IS DISTINCT FROM a.name
        """
        assert connection.execute(text(astray)).scalar_one() == 0
    return events


def test_exactly_one_of_the_moves_from_one_expected_state_wins(clients: list[Racer], engine: Engine) -> None:
    models = [clients[0].register(version=str(i)).id for i in range(CLIENTS)]
    expected = ""
    for round_ in range(1, 6):

        def call(i: int, client: Racer, now: str = expected) -> pb.SetAliasResponse:
            return set_alias(client, models[i], expected_model_id=now)

        told = together(clients, call)
        winners = [answer for answer in told if not isinstance(answer, str)]
        # Setting the present target again succeeds, too: it changes nothing.
        [winner] = [answer for answer in winners if answer.changed]
        assert [w.alias.model_id for w in winners if not w.changed] in ([], [expected])
        assert Counter(answer for answer in told if isinstance(answer, str)) == {
            "ALIAS_CHANGED": CLIENTS - len(winners)
        }
        assert winner.alias.revision == round_
        expected = winner.alias.model_id
        assert moves(clients[0])[-1].after.model_id == expected
    assert [event.action for event in assert_agreement(clients[0], engine)] == [Action.ALIAS_SET] * 5


def test_moves_without_an_expected_state_all_happen_one_after_the_other(clients: list[Racer], engine: Engine) -> None:
    models = [clients[0].register(version=str(i)).id for i in range(CLIENTS)]
    told = together(clients, lambda i, client: set_alias(client, models[i]))
    assert sorted(answer.alias.revision for answer in told) == list(range(1, CLIENTS + 1))
    assert len(assert_agreement(clients[0], engine)) == CLIENTS


def test_each_of_the_concurrent_rollbacks_goes_back_one_step_or_fails(clients: list[Racer], engine: Engine) -> None:
    models = [clients[0].register(version=str(i)).id for i in range(CLIENTS + 1)]
    for model_id in models:
        set_alias(clients[0], model_id)
    told = together(clients, lambda _, client: step_back(client))
    done = [answer for answer in told if not isinstance(answer, str)]
    assert done
    assert {answer for answer in told if isinstance(answer, str)} <= {"ALIAS_CHANGED"}
    reached = [answer.alias.model_id for answer in sorted(done, key=lambda answer: answer.alias.revision)]
    assert reached == models[-2 : -2 - len(done) : -1]
    assert_agreement(clients[0], engine)


@pytest.mark.parametrize("force", [False, True])
def test_no_alias_is_left_of_models_that_are_deleted_or_renamed_meanwhile(
    clients: list[Racer], engine: Engine, force: bool
) -> None:
    for round_ in range(6):
        one, two = (clients[0].register(version=f"{round_}.{i}").id for i in range(2))

        def call(i: int, client: Racer, one: str = one, two: str = two) -> str:
            match i % 5:
                case 0:
                    client.delete(one, force=force)
                case 1:
                    set_alias(client, one)
                case 2:
                    set_alias(client, two)
                case 3:
                    step_back(client)
                case _:
                    client.update(one, ["name"], name=f"another {client.name}")
            return "OK"

        assert set(together(clients, call)) <= {
            "OK",
            "MODEL_NOT_FOUND",
            "MODEL_IN_USE",
            "MODEL_HAS_ALIASES",
            "MODEL_NOT_IN_GROUP",
            "ALIAS_CHANGED",
            "ALIAS_NOT_FOUND",
            "NO_PREVIOUS_TARGET",
            "TARGET_GONE",
        }
        assert_agreement(clients[0], engine)
