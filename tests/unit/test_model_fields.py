"""A field of a model is declared once: every text field of the API has all that follows from the declaration."""

from typing import Any

import pytest
from google.api import field_behavior_pb2
from modelregistry.v1 import model_pb2

from registry_service.domain import filter as filters
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.listing import parse_order
from registry_service.domain.models import FIELD_KINDS, MUTABLE_FIELDS, FieldKind, ModelFields
from registry_service.domain.validation import checked_fields
from registry_service.storage.sql import rows, tables
from registry_service.transport.grpc.convert import models as convert

NOT_SET_BY_CLIENTS = {field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IMMUTABLE}


def is_set_by_clients(field: Any) -> bool:
    return not NOT_SET_BY_CLIENTS & set(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


FIELDS = [field for field in model_pb2.Model.DESCRIPTOR.fields if is_set_by_clients(field) and field.name != "etag"]
TEXTS = [field.name for field in FIELDS if field.type == field.TYPE_STRING and not field.is_repeated]


def fields_with(name: str, text: str) -> dict[str, Any]:
    return {"name": "n", "version": "1", name: text}


def test_the_domain_declares_the_fields_that_clients_set() -> None:
    assert {field.name for field in FIELDS} == set(MUTABLE_FIELDS)
    assert {name for name, kind in FIELD_KINDS.items() if kind in {FieldKind.TEXT, FieldKind.LONG_TEXT}} == set(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
class TestEveryTextField:
    def test_is_filterable(self, name: str) -> None:
        node = filters.parse(f'{name} = "x"')
        assert isinstance(node, filters.Restriction)
        assert node.field == filters.Field((name,), filters.Kind.TEXT)

    def test_is_orderable(self, name: str) -> None:
        assert parse_order(f"{name} desc")[0].name == name

    def test_is_converted_both_ways(self, name: str) -> None:
        fields = convert.fields_of(model_pb2.Model(**fields_with(name, "text")))
        assert getattr(fields, name) == "text"
        assert getattr(convert.fields_message(fields), name) == "text"

    def test_is_updatable(self, name: str) -> None:
        message = model_pb2.Model(**fields_with(name, "text"))
        assert convert.changes_of(message, [name]) == ({name: "text"}, {})

    def test_is_limited(self, name: str) -> None:
        fields = ModelFields(**fields_with(name, "x" * 100_000))
        with pytest.raises(InvalidArgumentError) as caught:
            checked_fields(fields, metadata_max_bytes=2**20)
        assert [violation.field for violation in caught.value.violations] == [name]

    def test_is_stored(self, name: str) -> None:
        assert name in tables.models.c
        fields = ModelFields(**fields_with(name, "text"))
        assert rows.field_values(fields)[name] == "text"

    def test_counts_toward_the_size_of_a_page(self, name: str) -> None:
        generated = tables.models.c.metadata_bytes.computed
        assert generated is not None
        assert f"octet_length({name})" in str(generated.sqltext) or name in tables.UNCOUNTED_TEXTS
