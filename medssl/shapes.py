"""What a JSON file must look like, checked field by field: a damaged one is refused with the field's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medssl.errors import MedSSLError
from medssl.text import printable

SHOWN = 60  # characters of a wrong value
REMEDY = "Make or download it again."


def check_shape(shape: TypeAdapter, values: object, file: str, error: type[MedSSLError]) -> None:
    """Raises `error`, naming the file and its first field that is missing or of another type than `shape` says."""
    try:
        shape.validate_python(values, strict=True)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False)[0]
        field = printable(".".join(map(str, first["loc"]))) or "the whole"
        given = "" if first["type"] == "missing" else f" is {repr(first['input'])[:SHOWN]}"
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise error(f"{file} does not fit: {field}{given}: {reason}. {REMEDY}") from invalid


def read_json(path: Path, file: str, error: type[MedSSLError]) -> dict[str, Any]:
    """The object in a JSON file. Raises `error`, naming it as `file`, when there is none."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        reason = getattr(cause, "strerror", None) or type(cause).__name__
        raise error(f"{file} cannot be read as JSON ({reason}). {REMEDY}") from cause
    if not isinstance(values, dict):
        raise error(f"{file} holds no JSON object. {REMEDY}")
    return values
