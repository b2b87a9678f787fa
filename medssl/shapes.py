"""What a JSON file must look like, checked field by field: a damaged one is refused with the field's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medssl.errors import MedSSLError

SHOWN = 60  # characters of a wrong value


def check_shape(shape: TypeAdapter, values: object, what: str, error: type[MedSSLError]) -> None:
    """Raises `error`, naming the first field that is missing or of another type than `shape` says."""
    try:
        shape.validate_python(values, strict=True)
    except ValidationError as found:
        first = found.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        given = "" if first["type"] == "missing" else f" is {repr(first['input'])[:SHOWN]}"
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise error(f"{what} does not fit: {field}{given}: {reason}. Make or download it again.") from found


def read_json(path: Path, what: str, error: type[MedSSLError]) -> dict[str, Any]:
    """The object in a JSON file. Raises `error` naming `what` when there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        reason = getattr(cause, "strerror", None) or type(cause).__name__
        raise error(f"{what} cannot be read as JSON ({reason}). Make or download it again.") from cause
    if not isinstance(found, dict):
        raise error(f"{what} holds no JSON object. Make or download it again.")
    return found
