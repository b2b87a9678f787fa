"""Files that the app hands out: files named by their content, which a download never sees half written."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from gradio.components import Component
from gradio.processing_utils import save_file_to_cache
from PIL import Image


def served_png(component: Component, image: Image.Image, name: str = "image.png") -> str:
    """The path of an image as a PNG file, which expires with what else that component handed out.

    Given an image itself, Gradio 6.31 writes over the file of an equal one, even while a browser is fetching it.
    """
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return served_file(component, stream.getvalue(), name)


def served_file(component: Component, data: bytes, name: str) -> str:
    """The path of a file with these bytes, which expires with what else that component handed out."""
    with tempfile.TemporaryDirectory(prefix="medssl-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        kept = save_file_to_cache(path, cache_dir=component.GRADIO_CACHE)
    # Gradio does not take note of files inside a JSON result by itself, and would keep them.
    component.temp_files.add(kept)
    return kept
