"""A checkpoint before it is opened: whether it is safe to, and its revision."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging

from medssl.errors import BackboneError

KNOWN_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")


@contextmanager
def quiet_loading():  # noqa: ANN201
    """Silence transformers' load report while inside: what it warns of is checked, and refused, right after."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def folder_revision(folder: Path) -> str:
    """A folder's revision: a hash over its config and weights, so that a changed checkpoint is noticed."""
    digest = hashlib.sha256()
    files = sorted(
        path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin") or path.name == "config.json"
    )
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return "sha256:" + digest.hexdigest()[:40]


def first_line(error: Exception) -> str:
    """The first line of an error's text, ending with a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:") + "."


def check_checkpoint(folder: Path) -> None:
    """Raises BackboneError for a checkpoint that would run code of its own, or is kept as a pickle.

    Neither is ever needed: a backbone is a transformers architecture with weights in safetensors.
    """
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return  # transformers names what is wrong with it
    if not isinstance(config, dict):
        raise BackboneError(f"The config.json in {folder.name} holds no JSON object, so it is no checkpoint.")
    if config.get("auto_map"):
        raise BackboneError(
            f"The backbone {folder.name} brings code of its own (auto_map in config.json), which is never run. Take "
            "one whose architecture transformers knows."
        )
    for name in ("attn_implementation", "_attn_implementation"):
        kernel = config.get(name)
        if kernel is not None and kernel not in KNOWN_ATTENTION:
            raise BackboneError(
                f"The backbone {folder.name} asks for the attention kernel {kernel!r}, which would be fetched and run. "
                f"Allowed: {', '.join(KNOWN_ATTENTION)}."
            )
    names = {path.name for path in folder.iterdir()}
    pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")))
    if pickled and not any(name.endswith(".safetensors") for name in names):
        raise BackboneError(
            f"The weights of the backbone {folder.name} are a pickle ({pickled[0]}), which can run code when opened. "
            "Give weights in safetensors: load it where you trust it, and save_pretrained() there."
        )
