"""Reads OpenVINO IR: streams the XML, keeping no tree, and never opens the weights.

Of a version 10 IR or newer: inputs are the Parameter layers, outputs what the
Result layers are fed from, weights the Const layers. Types have the names that
OpenVINO gives them today: f32, not FP32.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from xml.sax import SAXException
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from registry_service.domain.schema import Tensor
from registry_service.formats import limits
from registry_service.formats.findings import Findings, Sibling, clean, tensor
from registry_service.formats.reading import Budget, FormatError, Reader, UnknownFormatError

_FEED_BYTES = 64 * 1024
_ROOT = re.compile(rb"^(?:\xef\xbb\xbf)?\s*<(?:\?xml[\s?]|!--|net[\s>/])")
_NET = re.compile(rb"<net[\s>/]")
_OLD_TYPES = {"fp64": "f64", "fp32": "f32", "fp16": "f16", "bool": "boolean"}
_NAME_SEPARATOR = re.compile(r"(?<!\\),")
_LAYER = ["net", "layers", "layer"]


def is_openvino(head: bytes) -> bool:
    """Tells whether a file may be an IR: XML whose root is `net`."""
    return _ROOT.match(head) is not None and _NET.search(head) is not None


def read_openvino(reader: Reader, budget: Budget, findings: Findings, sibling: Sibling) -> None:
    """Fills the findings.

    Raises:
        UnknownFormatError: It is other XML, or none.
        FormatError: It is damaged, or too large.
    """
    network = _Network(budget, findings)
    try:
        _parse(reader, network)
    finally:
        network.report(findings.file_name, sibling)


def _parse(reader: Reader, network: "_Network") -> None:
    parser = DefusedExpatParser(forbid_dtd=True)
    parser.setContentHandler(network)
    try:
        _feed(parser, reader, network)
        parser.close()
    except FormatError:
        raise
    except DefusedXmlException as error:
        raise FormatError("It has a document type or entities, which are not read.") from error
    except (SAXException, ValueError, LookupError) as error:
        # The latter two come from decoders, of odd encodings.
        raise FormatError("It is damaged: its XML is not well-formed.") from error


def _feed(parser: DefusedExpatParser, reader: Reader, network: "_Network") -> None:
    quiet = 0
    while reader.position < reader.size:
        if reader.position >= limits.XML_BYTES:
            raise FormatError(f"Only its first {limits.XML_BYTES >> 20} MiB were read.")
        before = network.events
        parser.feed(reader.take(min(_FEED_BYTES, reader.size - reader.position)))
        # Expat keeps a tag until it is whole.
        quiet = quiet + _FEED_BYTES if network.events == before else 0
        if quiet > limits.XML_TOKEN_BYTES:
            raise FormatError(f"It has a tag of more than {limits.XML_TOKEN_BYTES >> 20} MiB.")


class _Network(ContentHandler):
    """Takes the XML's events and keeps what counts."""

    def __init__(self, budget: Budget, findings: Findings) -> None:
        super().__init__()
        self._budget = budget
        self._findings = findings
        self._path: list[str] = []
        self._nested_types: list[str] = []
        """Types of the layers that the present element is in."""
        self._layer: Mapping[str, str] = {}
        """Attributes of the present layer of the network itself."""
        self._port: Mapping[str, str] = {}
        self._dimensions: list[int | str] = []
        self._text: list[str] | None = None
        self._inputs: list[tuple[str, str, str, str]] = []
        """Id, name, element type and shape."""
        self._results: dict[str, tuple[str, str, tuple[int | str, ...]]] = {}
        """Name, element type and shape of each output, by the id of its layer."""
        self._port_names: dict[tuple[str, str], str] = {}
        self._producers: dict[str, tuple[str, str]] = {}
        """Layer and port that feed an output, by the id of its layer."""
        self._weights_end = 0
        self.events = 0

    def report(self, file_name: str, sibling: Sibling) -> None:
        """Puts inputs and outputs together, and looks for the weights."""
        self._findings.inputs = [self._input(*found) for found in self._inputs]
        self._findings.outputs = [
            tensor(self._port_names.get(self._producers.get(layer, ("", "")), "") or name, element_type, shape)
            for layer, (name, element_type, shape) in self._results.items()
        ]
        if self._weights_end == 0:
            return
        weights = PurePosixPath(file_name).with_suffix(".bin").name
        size = sibling(weights)
        if size is None:
            self._findings.add_problem(f"Its weights, the file {weights}, are missing.")
        elif size < self._weights_end:
            self._findings.add_problem(f"Its weights take {self._weights_end} bytes of {weights}, which has {size}.")

    def _input(self, layer: str, name: str, element_type: str, shape: str) -> Tensor:
        dimensions = [_dimension(text) for text in shape.split(",")] if shape else []
        return tensor(
            self._port_names.get((layer, "0"), "") or name, element_type, dimensions if shape != "..." else None
        )

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802 - the handler's name for it
        """Takes a tag."""
        self.events += 1
        self._budget.step()
        if len(self._path) >= limits.DEPTH:
            raise FormatError("Its elements are nested too deep.")
        if not self._path and name != "net":
            raise UnknownFormatError("It is no OpenVINO IR.")
        self._path.append(name)
        path = self._path
        if name == "layer":
            self._nested_types.append(attrs.get("type", ""))
            if path == _LAYER:
                self._layer = dict(attrs.items())
        elif name == "data" and len(path) > 1 and path[-2] == "layer":
            self._data(attrs)
        elif len(path) == 1:
            self._findings.add_metadata("ir_version", attrs.get("version", ""))
        elif path[1] in {"rt_info", "meta_data"}:
            self._information(attrs)
        elif path[1] == "edges":
            self._edge(attrs)
        elif path[:3] == _LAYER:
            self._ports(name, attrs)

    def _data(self, attrs: AttributesImpl) -> None:
        if self._nested_types[-1] == "Const":
            size = _number(attrs.get("size", ""))
            self._findings.add_weight(_type(attrs.get("element_type", "")), size * 8)
            self._weights_end = max(self._weights_end, _number(attrs.get("offset", "")) + size)
        elif self._nested_types == ["Parameter"] and len(self._inputs) <= limits.TENSORS:
            self._inputs.append(
                (
                    clean(self._layer.get("id", "")),
                    self._layer.get("name", "")[: limits.TEXT_LENGTH],
                    _type(attrs.get("element_type", "")),
                    attrs.get("shape", "")[: limits.TEXT_LENGTH],
                )
            )

    def _ports(self, name: str, attrs: AttributesImpl) -> None:
        if name == "port" and len(self._path) == 5:
            self._port = dict(attrs.items())
            self._dimensions = []
            names = self._port.get("names")
            if self._path[3] == "output" and names and len(self._port_names) < limits.NAMES:
                key = (clean(self._layer.get("id", "")), clean(self._port.get("id", "")))
                self._port_names[key] = _first_name(names[: 2 * limits.TEXT_LENGTH])
        elif name == "dim" and self._nested_types == ["Result"]:
            self._text = []

    def _edge(self, attrs: AttributesImpl) -> None:
        if attrs.get("to-layer") in self._results:
            self._producers[attrs["to-layer"]] = (clean(attrs.get("from-layer", "")), clean(attrs.get("from-port", "")))

    def _information(self, attrs: AttributesImpl) -> None:
        value = attrs.get("value")
        if value is None or len(self._path) < 3:
            return
        name = ".".join(self._path[2:])
        if name in {"Runtime_version", "MO_version"} and not self._findings.producer:
            self._findings.producer = f"OpenVINO {value}"
        self._findings.add_metadata(name, value)

    def characters(self, content: str) -> None:
        """Takes a piece of text."""
        self.events += 1
        if self._text is not None and len(self._text) < 8:
            self._text.append(content[:100])

    def endElement(self, name: str) -> None:  # noqa: N802 - the handler's name for it
        """Takes the end of an element."""
        if name == "dim" and self._text is not None:
            if len(self._dimensions) <= limits.DIMENSIONS:
                self._dimensions.append(_dimension("".join(self._text).strip()))
            self._text = None
        elif name == "port" and self._nested_types == ["Result"] and len(self._results) <= limits.TENSORS:
            self._results[self._layer.get("id", "")[: limits.TEXT_LENGTH]] = (
                self._layer.get("name", "")[: limits.TEXT_LENGTH],
                _type(self._port.get("precision", "")),
                tuple(self._dimensions),
            )
        elif name == "layer":
            self._nested_types.pop()
        self._path.pop()


def _type(text: str) -> str:
    name = text[:100].lower()
    return _OLD_TYPES.get(name, name)


def _first_name(names: str) -> str:
    """Returns the first of the names of a port, in which commas are escaped."""
    return _NAME_SEPARATOR.split(names, maxsplit=1)[0].replace("\\,", ",")


def _dimension(text: str) -> int | str:
    text = text.strip()
    if text in {"-1", "?", ""}:
        return "?"
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
