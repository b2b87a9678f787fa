"""Is a ViT-CX other than the published one better? Variants beside it on a validation split, never on the test split.

Deletion and insertion are of the predicted class's probability for all of them, whatever they explain themselves.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import faithfulness

if TYPE_CHECKING:
    from medssl.bundle.bundle import Bundle
    from medssl.explain.explainer import Explainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's arguments: those of `faithfulness`, on the validation split."""
    faithfulness.add_arguments(parser)
    parser.set_defaults(split="val", n=30)
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="these variants alone (default: all)")


def run(arguments: argparse.Namespace) -> dict:
    """Measure ViT-CX, its variants and the control on every bundle, print a table each, and return the figures."""
    from vit_cx_variants import VARIANTS

    from medssl.errors import DataError
    from medssl.explain.control import RandomMap

    known = {kind.method: kind for kind in VARIANTS}
    wanted = arguments.variants or list(known)
    if unknown := [name for name in wanted if name not in known]:
        raise DataError(f"There is no variant {', '.join(unknown)}. Allowed: {', '.join(known)}.")

    def make(bundle: Bundle) -> dict[str, Explainer]:
        kinds = (*(known[name] for name in wanted), RandomMap)
        return {"vit_cx": bundle.explainer, **{kind.method: kind(bundle.backbone, bundle.head) for kind in kinds}}

    return faithfulness.compare(arguments, make, "vit_cx")
