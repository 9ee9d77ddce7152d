"""Reads OpenVINO IR: streams the XML without building a tree, and never opens the weights.

Supports the versions that OpenVINO supports, 10 and 11. Inputs are the Parameter
layers, outputs the Result layers, weights the Const layers. A tensor has the
name that `any_name` of OpenVINO's API returns: the first of its names in
alphabetical order. Types are those of the file under their present names: f32,
not FP32. When OpenVINO loads a model of version 10, it converts some types of
inputs and outputs, for example f16 to f32.
"""

import posixpath
import re
from collections.abc import Mapping
from xml.sax import SAXException
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from registry_service.domain.signature import Tensor
from registry_service.signatures import limits
from registry_service.signatures.builder import Siblings, SignatureBuilder, clean, tensor
from registry_service.signatures.file_reader import Budget, FormatError, Reader, UnknownFormatError

_FEED_BYTES = 64 * 1024
_ROOT = re.compile(rb"^(?:\xef\xbb\xbf)?\s*<(?:\?xml[\s?]|!--|net[\s>/])")
_NET = re.compile(rb"<net[\s>/]")
_ENCODINGS = (
    ("utf-32-le", (b"\xff\xfe\0\0", b"<\0\0\0")),
    ("utf-32-be", (b"\0\0\xfe\xff", b"\0\0\0<")),
    ("utf-16-le", (b"\xff\xfe", b"<\0")),
    ("utf-16-be", (b"\xfe\xff", b"\0<")),
)
"""Encodings of XML other than UTF-8, by the first bytes of a file. Longer prefixes precede shorter ones."""
_OLD_TYPES = {"fp64": "f64", "fp32": "f32", "fp16": "f16", "bool": "boolean"}
_NAME_SEPARATOR = re.compile(r"(?<!\\),")
_LAYER = ["net", "layers", "layer"]
_VERSIONS = frozenset({"10", "11"})


def is_openvino(head: bytes) -> bool:
    """Return whether a file may be OpenVINO IR: XML with the root `net`."""
    encoding = _wide_encoding(head)
    if encoding is not None:
        head = head.decode(encoding, errors="ignore").encode()
    return _ROOT.match(head) is not None and _NET.search(head) is not None


def _wide_encoding(head: bytes) -> str | None:
    return next((name for name, beginnings in _ENCODINGS if head.startswith(beginnings)), None)


def read_openvino(reader: Reader, budget: Budget, builder: SignatureBuilder, siblings: Siblings) -> None:
    """Read an OpenVINO IR file into the builder.

    Raises:
        UnknownFormatError: The file is other XML, or not XML.
        FormatError: The file is damaged or too large.
    """
    encoding = _wide_encoding(reader.peek(4)) or ""
    if encoding.startswith("utf-32"):
        raise FormatError("The encoding UTF-32 is not supported.")
    network = _Network(budget, builder)
    try:
        _parse(reader, network)
    finally:
        network.report(builder.file_name, siblings)


def _parse(reader: Reader, network: "_Network") -> None:
    parser = DefusedExpatParser(forbid_dtd=True)
    parser.setContentHandler(network)
    try:
        _feed(parser, reader, network)
        parser.close()
    except FormatError:
        raise
    except DefusedXmlException as error:
        raise FormatError("Document type declarations and entities are not supported.") from error
    except (SAXException, ValueError, LookupError) as error:
        # Decoders of unusual encodings raise ValueError and LookupError.
        raise FormatError("The file is damaged: its XML is not well-formed.") from error


def _feed(parser: DefusedExpatParser, reader: Reader, network: "_Network") -> None:
    quiet = 0
    while reader.position < reader.size:
        if reader.position >= limits.XML_BYTES:
            raise FormatError(f"Only the first {limits.XML_BYTES >> 20} MiB were read.")
        before = network.events
        parser.feed(reader.take(min(_FEED_BYTES, reader.size - reader.position)))
        # Expat buffers a tag until it is complete.
        quiet = quiet + _FEED_BYTES if network.events == before else 0
        if quiet > limits.XML_TOKEN_BYTES:
            raise FormatError(f"A tag is larger than {limits.XML_TOKEN_BYTES >> 20} MiB.")


class _Network(ContentHandler):
    """Handles the events of the XML parser and keeps the relevant values."""

    def __init__(self, budget: Budget, builder: SignatureBuilder) -> None:
        super().__init__()
        self._budget = budget
        self._builder = builder
        self._version = ""
        self._path: list[str] = []
        self._nested_types: list[str] = []
        """Types of the layers around the current element."""
        self._layer: Mapping[str, str] = {}
        """Attributes of the current layer of the network itself."""
        self._data_of_layer: Mapping[str, str] = {}
        """Attributes of the layer's `data`."""
        self._output_ports: list[tuple[str, str, str]] = []
        """Id, name and element type of each output of the layer."""
        self._weight: tuple[str, int] | None = None
        """Element type and size of the current Const layer, also in the body of a loop."""
        self._port: Mapping[str, str] = {}
        self._dimensions: list[int | str] = []
        self._text: str | None = None
        self._results: dict[str, tuple[str, str, str, tuple[int | str, ...]]] = {}
        """Name, port name, element type and shape of each Result, by the id of its layer."""
        self._ports: dict[tuple[str, str], tuple[str, str]] = {}
        """Name and element type of each output port, by the ids of its layer and of the port."""
        self._producers: dict[str, tuple[str, str]] = {}
        """Layer and port that feed each Result, by the id of its layer."""
        self._weights_end = 0
        self.events = 0

    def report(self, file_name: str, siblings: Siblings) -> None:
        """Add the outputs, and check the weights file."""
        self._builder.outputs = [self._output(layer, *found) for layer, found in self._results.items()]
        if self._weights_end == 0:
            return
        weights = posixpath.splitext(posixpath.basename(file_name))[0] + ".bin"
        size = siblings.size(weights)
        if size is None:
            self._builder.add_problem(f"The weights file {weights} is missing.")
        elif size < self._weights_end:
            self._builder.add_problem(f"The weights need {self._weights_end} bytes of {weights}, which has {size}.")

    def _output(
        self, layer: str, layer_name: str, name: str, element_type: str, shape: tuple[int | str, ...]
    ) -> Tensor:
        # A Result of version 10 has neither name nor type: it has those of the port that feeds it.
        produced_name, produced_type = self._ports.get(self._producers.get(layer, ("", "")), ("", ""))
        # Version 11 writes no dimensions for a scalar, and none for a dynamic rank.
        is_open = not shape and self._version != "10"
        return tensor(name or produced_name or layer_name, element_type or produced_type, None if is_open else shape)

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802 - named by ContentHandler
        """Handle a start tag."""
        self.events += 1
        self._budget.step()
        if len(self._path) >= limits.DEPTH:
            raise FormatError("Elements are nested too deeply.")
        if not self._path and name != "net":
            raise UnknownFormatError("The file is not OpenVINO IR.")
        self._path.append(name)
        path = self._path
        if name == "layer":
            self._nested_types.append(attrs.get("type", ""))
            self._weight = None
            if path == _LAYER:
                self._layer, self._data_of_layer, self._output_ports = dict(attrs.items()), {}, []
        elif name == "data" and len(path) > 1 and path[-2] == "layer":
            self._data(attrs)
        elif len(path) == 1:
            self._begin(attrs.get("version", ""))
        elif path[1] in {"rt_info", "meta_data"}:
            self._information(attrs)
        elif path[1] == "edges":
            self._edge(attrs)
        elif path[:3] == _LAYER:
            self._port_or_dimension(name, attrs)

    def _begin(self, version: str) -> None:
        self._version = version
        self._builder.add_metadata("ir_version", version)
        if version not in _VERSIONS:
            found = f"IR version {version[:100]} is not supported" if version else "The IR version is missing"
            raise FormatError(f"{found}; supported are versions 10 and 11.")

    def _data(self, attrs: AttributesImpl) -> None:
        if self._nested_types[-1] == "Const":
            size = _number(attrs.get("size", ""))
            self._weight = attrs.get("element_type", ""), size
            self._weights_end = max(self._weights_end, _number(attrs.get("offset", "")) + size)
        elif self._nested_types == ["Parameter"]:
            self._data_of_layer = dict(attrs.items())

    def _port_or_dimension(self, name: str, attrs: AttributesImpl) -> None:
        if name == "port":
            if self._weight is not None and not self._weight[0]:
                # Early versions of the Model Optimizer wrote the type only at the port.
                self._weight = attrs.get("precision", ""), self._weight[1]
            if len(self._path) == 5:
                self._port = dict(attrs.items())
                self._dimensions = []
                if self._path[3] == "output":
                    self._add_output_port(attrs)
        elif name == "dim" and self._nested_types == ["Result"]:
            self._text = ""

    def _add_output_port(self, attrs: AttributesImpl) -> None:
        if len(self._ports) + len(self._output_ports) >= limits.NAMES:
            self._builder.add_problem(f"Only the names of the first {limits.NAMES:,} ports were read.")
            return
        port = clean(attrs.get("id", ""))
        self._output_ports.append((port, _first(attrs.get("names")), _type(attrs.get("precision", ""))))

    def _end_layer(self) -> None:
        if self._weight is not None:
            element_type, size = self._weight
            self._builder.add_weight(_type(element_type), size * 8)
            self._weight = None
        self._nested_types.pop()
        if self._path != _LAYER:
            return
        layer, layer_name = clean(self._layer.get("id", "")), clean(self._layer.get("name", ""))
        for i, (port, given, element_type) in enumerate(self._output_ports):
            name = given
            if self._version == "10":
                # OpenVINO adds the name that a tensor had before tensors had names of their own.
                own_name = layer_name if len(self._output_ports) == 1 else f"{layer_name}.{i}"
                name = min(given or own_name, own_name)
            self._ports[layer, port] = name, element_type
        if self._layer.get("type") == "Parameter" and len(self._builder.inputs) <= limits.TENSORS:
            port_id, _, port_type = self._output_ports[0] if self._output_ports else ("", "", "")
            name, _ = self._ports.get((layer, port_id), ("", ""))
            element_type = _type(self._data_of_layer.get("element_type", "")) or port_type
            self._builder.inputs.append(tensor(name or layer_name, element_type, _shape(self._data_of_layer)))

    def _edge(self, attrs: AttributesImpl) -> None:
        to_layer = clean(attrs.get("to-layer", ""))
        if to_layer in self._results:
            self._producers[to_layer] = (clean(attrs.get("from-layer", "")), clean(attrs.get("from-port", "")))

    def _information(self, attrs: AttributesImpl) -> None:
        value = attrs.get("value")
        if value is None or len(self._path) < 3:
            return
        name = ".".join(self._path[2:])
        if name in {"Runtime_version", "MO_version"} and not self._builder.producer:
            self._builder.producer = f"OpenVINO {value}"
        self._builder.add_metadata(name, value)

    def characters(self, content: str) -> None:
        """Handle a piece of text."""
        self.events += 1
        if self._text is not None and len(self._text) <= limits.TEXT_LENGTH:
            self._text += content[: limits.TEXT_LENGTH + 1]

    def endElement(self, name: str) -> None:  # noqa: N802 - named by ContentHandler
        """Handle an end tag."""
        if name == "dim" and self._text is not None:
            if len(self._dimensions) <= limits.DIMENSIONS:
                self._dimensions.append(_dimension(self._text))
            self._text = None
        elif name == "port" and self._nested_types == ["Result"] and len(self._results) <= limits.TENSORS:
            self._results[clean(self._layer.get("id", ""))] = (
                clean(self._layer.get("name", "")),
                "" if self._version == "10" else _first(self._layer.get("output_names")),
                _type(self._port.get("precision", "")),
                tuple(self._dimensions),
            )
        elif name == "layer":
            self._end_layer()
        self._path.pop()


def _type(text: str) -> str:
    name = clean(text.lower())
    return _OLD_TYPES.get(name, name)


def _first(names: str | None) -> str:
    """Return the alphabetically first of comma-separated names, in which commas are escaped."""
    found = (name.replace("\\,", ",") for name in _NAME_SEPARATOR.split(names or "") if name)
    return clean(min(found, default=""))


def _shape(data: Mapping[str, str]) -> list[int | str] | None:
    """Return the shape of a Parameter, whose dimensions may be in brackets; None for a dynamic rank."""
    text = data.get("shape", "").strip().removeprefix("[").removesuffix("]")
    if text == "...":
        return None
    # One more than allowed lets `tensor` report that there are too many.
    return [_dimension(size) for size in text.split(",", limits.DIMENSIONS)] if text else []


def _dimension(text: str) -> int | str:
    text = text.strip()
    if text in {"-1", "?", ""}:
        return "?"
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
