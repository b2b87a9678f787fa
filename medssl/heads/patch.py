"""A head that looks at patches: each patch gives evidence for each class, and the strongest of it decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from medssl.backbones.backbone import Backbone, Encoding, first_line
from medssl.errors import BundleError
from medssl.heads.head import LINEAR, SCHEMA_VERSION, ClassificationHead, Head, check_schema, head_folder
from medssl.hub.pull import CONFIG_FILE

PATCH = "patch"


def strongest(share: float, patches: int) -> int:
    """How many patches the top `share` of them are, at least one."""
    return max(1, round(share * patches))


def pool_evidence(evidence: torch.Tensor, share: float) -> torch.Tensor:
    """Patch evidence `[B, P, ...]` as its mean over the top share of the patches, each class by itself: `[B, ...]`."""
    count = strongest(share, evidence.shape[1])
    return evidence.mean(dim=1) if count == evidence.shape[1] else evidence.topk(count, dim=1).values.mean(dim=1)


class PatchHead(Head):
    """One linear layer over each patch token; a class's log-odds are the mean of its top `share` of patches.

    A patch's evidence for a class is its logit less the mean over classes, so that what speaks for all speaks for none.
    `layer` is the block whose patches are read (1 is the first; None: the final tokens, after the last norm); for a
    block the encoding must come from `backbone.reading(layer)`. `pooling` and `embedding_dim` are of the embedding that
    the library searches. Raises BundleError for a config that does not fit.
    """

    kind = PATCH

    def __init__(
        self,
        labels: list[str],
        embedding_dim: int,
        backbone: dict,
        pooling: str,
        preprocess: dict,
        share: float,
        layer: int | None = None,
        temperature: float = 1.0,
        thresholds: dict | None = None,
        fitted_on: dict | None = None,
        task: dict | None = None,
        versions: dict | None = None,
        schema_version: int = SCHEMA_VERSION,
        kind: str = PATCH,
    ) -> None:
        super().__init__(
            labels,
            embedding_dim,
            backbone,
            pooling,
            preprocess,
            temperature,
            thresholds,
            fitted_on,
            task,
            versions,
            schema_version,
        )
        if kind != PATCH:
            raise BundleError(f"kind is {kind!r}; a PatchHead is of kind {PATCH!r}.")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise BundleError(f"share is {share!r}; allowed: above 0, up to 1 (all patches).")
        if layer is not None and (isinstance(layer, bool) or not isinstance(layer, int) or layer < 1):
            raise BundleError(f"layer is {layer!r}; allowed: null (final tokens) or a block's number from 1 on.")
        width = self.backbone.get("dimension")
        if not isinstance(width, int) or width < 1:
            raise BundleError(f"The head's backbone has dimension {width!r}; a whole number from 1 on is needed.")
        self.share, self.layer = float(share), layer
        # Not called `linear`: the weights of one kind of head must not pass for the other's.
        self.patch_linear = torch.nn.Linear(width, len(self.labels))
        self.requires_grad_(False)

    @classmethod
    def from_patch_linear(
        cls,
        weight: torch.Tensor,
        bias: torch.Tensor,
        labels: list[str],
        backbone: Backbone,
        pooling: str | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> PatchHead:
        """A head from your own patch classifier: `weight [C, D]`, `bias [C]`. Raises BundleError if they do not fit."""
        weight, bias = torch.as_tensor(weight).float(), torch.as_tensor(bias).float()
        expected = (len(labels), backbone.dimension)
        if tuple(weight.shape) != expected or tuple(bias.shape) != expected[:1]:
            raise BundleError(
                f"weight is {list(weight.shape)} and bias {list(bias.shape)}; {len(labels)} labels on the patches of "
                f"this backbone need {list(expected)} and {list(expected[:1])}."
            )
        pooling = pooling or backbone.default_pooling
        settings.setdefault("preprocess", backbone.preprocess.to_dict())
        head = cls(
            labels=list(labels),
            embedding_dim=backbone.embedding_dim(pooling),
            backbone=backbone.describe(),
            pooling=pooling,
            **settings,
        )
        head.patch_linear.weight.copy_(weight)
        head.patch_linear.bias.copy_(bias)
        head.check_backbone(backbone)
        return head

    def check_backbone(self, backbone: Backbone) -> None:
        """Raises BundleError, naming both values, unless this is the backbone the head was fitted on."""
        super().check_backbone(backbone)
        backbone.reading(self.layer)

    def patches_of(self, encoding: Encoding) -> torch.Tensor:
        """The patch tokens `[B, h, w, D]` that this head reads. Raises BundleError when the encoding lacks them."""
        if self.layer is None:
            return encoding.patches
        if self.layer not in encoding.layers:
            raise BundleError(
                f"This head reads the patches of block {self.layer}, which this encoding does not hold "
                f"({', '.join(map(str, encoding.layers)) or 'final patches only'}). "
                f"Encode with backbone.reading({self.layer})."
            )
        return encoding.layers[self.layer]

    def evidence(self, patches: torch.Tensor) -> torch.Tensor:
        """Each patch's evidence for each class `[..., C]`, of tokens `[..., D]`, in calibrated log-odds."""
        logits = self.patch_linear(patches.to(self.patch_linear.weight)) / self.temperature
        return logits - logits.mean(dim=-1, keepdim=True)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Calibrated log-odds `[B, C]` of patch tokens `[B, P, D]`."""
        return pool_evidence(self.evidence(patches), self.share)

    def classify(self, encoding: Encoding) -> torch.Tensor:
        """Calibrated class probabilities `[B, C]` of an encoding, on the CPU; gradients flow."""
        return self.forward(self.patches_of(encoding).cpu().flatten(1, 2)).softmax(dim=-1)

    def evidence_map(self, encoding: Encoding, index: int) -> torch.Tensor:
        """Each patch's evidence `[B, h, w]` for one class: the mean of its top share is that class's log-odds."""
        return self.evidence(self.patches_of(encoding).cpu())[..., index]


KINDS: dict[str, type[Head]] = {LINEAR: ClassificationHead, PATCH: PatchHead}


def load_head(place: str | Path, **kwargs: Any) -> Head:  # noqa: ANN401
    """Load a head of any kind from a folder or a Hub repo (`revision=`, `token=`, ...), strictly.

    Raises BundleError when it cannot be read, is of an unknown kind, or does not match.
    """
    folder = head_folder(place, kwargs)
    try:
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        kind, schema = config.get("kind", LINEAR), config.get("schema_version", SCHEMA_VERSION)
    except (OSError, ValueError, AttributeError) as error:
        raise BundleError(
            f"The head {str(place)!r} could not be loaded: {first_line(error)} "
            "Check the name, the network and that it was written by medssl."
        ) from error
    check_schema(schema)
    if kind not in KINDS:
        raise BundleError(
            f"The head {str(place)!r} is of kind {kind!r}. Allowed: {', '.join(KINDS)}. Update medssl, or fit it again."
        )
    return KINDS[kind].from_pretrained(folder, **kwargs)
