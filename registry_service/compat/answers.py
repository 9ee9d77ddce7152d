"""The responses of the Intel-compatible API: statuses, texts and JSON, independent of the transport."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response."""

    status: int
    content_type: str
    body: bytes = b""
    retry_seconds: float | None = None
    """When the client may retry; None if unknown."""


class RestError(Exception):
    """The request gets an error response."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def text(status: int, body: str) -> Answer:
    """Return a response with a text."""
    # Some texts contain input of the client, which may be invalid Unicode.
    return Answer(status=status, content_type=TEXT, body=body.encode(errors="replace"))


def json_answer(status: int, body: object) -> Answer:
    """Return a response with JSON."""
    return Answer(status=status, content_type=JSON, body=json_bytes(body))


def json_bytes(value: object) -> bytes:
    """Serialize JSON as Intel's Model Registry does: without spaces, and without escapes of non-ASCII characters."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(errors="replace")


def detail(status: int, message: str) -> Answer:
    """Return a response with `{"detail": "..."}`."""
    return json_answer(status, {"detail": message})


def details(items: Sequence[Mapping[str, object]]) -> Answer:
    """Return 422 with the error of each field, in the format of FastAPI."""
    return json_answer(422, {"detail": items})


def json_invalid(position: int, error: str) -> Answer:
    """Return 422 for a body that is not JSON."""
    return details(
        [
            {
                "type": "json_invalid",
                "loc": ["body", position],
                "msg": "JSON decode error",
                "input": {},
                "ctx": {"error": error},
            }
        ]
    )


INVALID_PROJECT_ID = detail(400, "Invalid format for project ID.")
INVALID_ID = detail(400, "Invalid format for model ID.")
BROKEN_BODY = detail(400, "There was an error parsing the body")
MODEL_NOT_FOUND = text(404, "Model not found.\n")
MODELS_NOT_FOUND = text(404, "Model(s) not found.\n")
FILES_NOT_FOUND = text(404, "Model files not found.\n")
NOTHING_TO_CHANGE = json_answer(
    400,
    {
        "status": "error",
        "message": "Invalid request. Check the request body and ensure at least 1 supported field is provided.",
    },
)
COMPLETED = json_answer(200, {"status": "completed"})
DELETED = Answer(status=204, content_type=TEXT)
UNAVAILABLE = text(503, "The service cannot do this at present; try again later.\n")
INTERNAL = text(500, "Internal Server Error")
GETI_NOT_CONFIGURED = text(
    500,
    "ValueError\n\nOne or more of the following environment variables are not set: GETI_HOST, GETI_ORGANIZATION_ID, "
    "GETI_WORKSPACE_ID, GETI_TOKEN, and/or GETI_SERVER_API_VERSION.",
)
PROJECT_NOT_FOUND = text(404, "Project not found.\n")
GETI_MODELS_NOT_FOUND = text(404, "Project or model id not found. No model(s) registered.\n")


def conflict(model_id: str) -> Answer:
    """Return 409 with the id of the other model."""
    return text(409, f"The requested action could not be completed due to a conflict with model '{model_id}'.")


def registered(model_ids: Sequence[str]) -> Answer:
    """Return 409 for an import of models that are already registered."""
    verb = "is" if len(model_ids) == 1 else "are"
    return text(
        409,
        f"Model(s): {', '.join(model_ids)} {verb} already registered. No model(s) registered.\n"
        "Tip: Delete the previously mentioned model(s) or remove the id(s) from the request body then try again.\n",
    )


def bad_gateway(message: str) -> Answer:
    """Return 502 for an error of Geti."""
    return text(502, f"{message}\n")
