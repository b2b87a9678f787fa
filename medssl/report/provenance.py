"""Which head, backbone and cases an answer came from: names, revisions and versions."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

import torch
import transformers

from medssl import __version__
from medssl.bundle.bundle import Bundle
from medssl.bundle.cases import cases_fingerprint, split_cases
from medssl.heads.head import Head


def backbone_name(bundle: Bundle) -> str:
    """The backbone's name or Hub id; of a folder only its own name, as where it lies is nobody's business."""
    name = str(bundle.head.backbone.get("id", "not stated"))
    return name if name.count("/") <= 1 and not name.startswith((".", "~", "/")) else Path(name).name


def head_revision(head: Head) -> str:
    """A hash of a head's weights and settings: two heads that answer alike have the same."""
    digest = hashlib.sha256(repr(sorted(head.config.to_dict().items())).encode())
    for name, tensor in sorted(head.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def provenance(bundle: Bundle) -> dict[str, dict[str, str]]:
    """The names, revisions and versions behind a bundle's answers, as plain text."""
    head = bundle.head
    return {
        "head": {
            "bundle": bundle.name,
            "kind": head.kind,
            "revision": head_revision(head),
            "fitted on": str(head.fitted_on.get("data", "not stated")),
        },
        "backbone": {
            "id": backbone_name(bundle),
            "revision": str(head.backbone.get("revision", "not stated")),
            "pooling": head.pooling,
        },
        "cases": {
            "searched": str(len(bundle.library)),
            "revision": f"sha256:{cases_fingerprint(split_cases(bundle.cases))}",
        },
        "fitted with": {name: str(version) for name, version in head.versions.items()},
        "answered with": {
            "medssl": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }
