"""Hypothesis strategies for hostile protobuf messages of any type, from their descriptors."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.fuzzing import ODD_TEXTS

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    # Open enumerations take any number.
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
_MAX_DEPTH = 5

Words = Callable[[], Mapping[str, list[str]]]
"""Returns texts that exist at the moment, by the names of the fields that take them."""


def messages(descriptor: Descriptor, words: Words, depth: int = 0) -> st.SearchStrategy[Message]:
    """Return a strategy for messages with any fields set to any value."""
    if descriptor.full_name in {"google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.ListValue"}:
        return _json_messages(descriptor.full_name)
    if descriptor.full_name == "google.protobuf.Timestamp":
        depth = _MAX_DEPTH

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            # In a oneof, the last field that is set counts.
            if draw(st.integers(0, 2)) and not (depth >= _MAX_DEPTH and field.message_type):
                _set(message, field, draw, words, depth)
        return message

    return build()


def _set(message: Message, field: FieldDescriptor, draw: st.DrawFn, words: Words, depth: int) -> None:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        keys, values = kind.fields_by_name["key"], kind.fields_by_name["value"]
        entries = draw(st.dictionaries(_scalars(keys, words), _values(values, words, depth), max_size=4))
        target = getattr(message, field.name)
        for key, value in entries.items():
            if values.message_type is not None:
                target[key].CopyFrom(value)
            else:
                target[key] = value
    elif field.is_repeated:
        target = getattr(message, field.name)
        target.extend(draw(st.lists(_values(field, words, depth), max_size=4)))
        if message.ByteSize() < 1_000:
            target.extend(list(target) * draw(st.sampled_from([0, 0, 0, 0, 0, 0, 0, 40, 1_000])))
    elif kind is not None:
        getattr(message, field.name).CopyFrom(draw(messages(kind, words, depth + 1)))
    else:
        setattr(message, field.name, draw(_scalars(field, words)))


def _values(field: FieldDescriptor, words: Words, depth: int) -> st.SearchStrategy[Any]:
    return messages(field.message_type, words, depth + 1) if field.message_type is not None else _scalars(field, words)


def _scalars(field: FieldDescriptor, words: Words) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
        return st.floats(width=32 if kind == FieldDescriptor.CPPTYPE_FLOAT else 64)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=200) | st.builds(bytes, st.sampled_from([0, 1, 70_000, 1_100_000]))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _texts(field.name, words)
    if field.enum_type is not None:
        known = [value.number for value in field.enum_type.values]
        return st.sampled_from(known) | _integers(kind)
    return _integers(kind)


@cache
def _integers(kind: int) -> st.SearchStrategy[int]:
    low, high = _RANGES[kind]
    small = [number for number in (-1, 0, 1, 2, 10, 1_000, 1_001) if low <= number]
    return st.sampled_from([low, high, *small]) | st.integers(low, high)


def _texts(name: str, words: Words) -> st.SearchStrategy[str]:
    # Called for each example, as the known texts change.
    known = st.deferred(lambda: st.sampled_from(words().get(name, ["x"])))
    if name in words():
        return st.one_of(known, known, known, st.sampled_from(ODD_TEXTS), st.text(max_size=50))
    return st.sampled_from(ODD_TEXTS) | st.text(max_size=50)


@cache
def _json_messages(full_name: str) -> st.SearchStrategy[Any]:
    # The descriptors would do, but nesting is what breaks JSON parsers.
    from google.protobuf import struct_pb2  # noqa: PLC0415

    leaf = st.one_of(
        st.just(struct_pb2.Value()),
        st.just(struct_pb2.Value(null_value=struct_pb2.NullValue.NULL_VALUE)),
        st.builds(lambda number: struct_pb2.Value(number_value=number), st.floats()),
        st.builds(lambda text: struct_pb2.Value(string_value=text), st.sampled_from(ODD_TEXTS) | st.text(max_size=20)),
        st.builds(lambda truth: struct_pb2.Value(bool_value=truth), st.booleans()),
    )

    def nested(value: struct_pb2.Value, levels: int, *, in_lists: bool) -> struct_pb2.Value:
        for _ in range(levels):
            outer = struct_pb2.Value()
            if in_lists:
                outer.list_value.values.append(value)
            else:
                outer.struct_value.fields["a"].CopyFrom(value)
            value = outer
        return value

    values = st.builds(nested, leaf, st.sampled_from([0, 0, 0, 1, 3, 15, 24, 31]), in_lists=st.booleans())
    keys = st.sampled_from(ODD_TEXTS) | st.text(max_size=10)
    if full_name == "google.protobuf.Value":
        return values
    if full_name == "google.protobuf.ListValue":
        return st.builds(lambda items: struct_pb2.ListValue(values=items), st.lists(values, max_size=4))
    return st.builds(lambda items: struct_pb2.Struct(fields=items), st.dictionaries(keys, values, max_size=4))
