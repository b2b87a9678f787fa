"""A model's work on a ZeroGPU Space: in the process that `spaces.GPU` forks for it; everything else stays outside.

Such a Space gives a GPU only inside a decorated function, and what goes in and out is pickled. So the bundles stay in
this process, are inherited by the fork, and only images, embeddings and heatmaps travel. Qdrant is never inside.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

from medssl.runtime import on_zero_gpu

BundleT = TypeVar("BundleT")  # a Bundle, of which this room knows the names of its model work only
MODEL_WORK = (
    *("encode", "encode_frames", "classify_frames", "encode_patches"),
    *("explain_class", "explain_likeness", "verify", "locate"),
)
SECONDS = 60  # of GPU time that a call may take; the shorter, the sooner a visitor's turn comes
_lent: list[Any] = []


def prepare() -> None:
    """Import `spaces` where it is needed; it must come before torch."""
    if on_zero_gpu():
        import_module("spaces")


def work(index: int, name: str, packed: bytes) -> bytes:
    """Do one piece of a lent bundle's model work, on the GPU where there is one. Arguments and result are pickled.

    Plain pickles: torch's own way between processes shares memory that goes away with the fork.
    """
    import torch

    bundle = _lent[index]
    if torch.cuda.is_available():
        bundle.backbone.to("cuda")
    args, settings = pickle.loads(packed)
    result = getattr(type(bundle), name)(bundle, *args, **settings)
    return pickle.dumps(result.cpu() if hasattr(result, "cpu") else result)


def ask(gpu_work: Callable[[int, str, bytes], bytes], index: int, name: str, *args: Any, **settings: Any) -> Any:  # noqa: ANN401
    """Send one piece of work inside.

    An encoding at hand is left out, its tensors are on the wrong device there; progress cannot be told from there.
    """
    plain = [None if callable(value) else value for value in args]
    kept = {key: value for key, value in settings.items() if key not in ("encoding", "progress")}
    return pickle.loads(gpu_work(index, name, pickle.dumps((plain, kept))))


def lend(bundle: BundleT) -> BundleT:
    """Let the bundle's model work go through `spaces.GPU` on a ZeroGPU Space; elsewhere nothing is changed."""
    if on_zero_gpu():
        gpu_work = import_module("spaces").GPU(duration=SECONDS)(work)
        _lent.append(bundle)
        for name in MODEL_WORK:
            setattr(bundle, name, partial(ask, gpu_work, len(_lent) - 1, name))
    return bundle
