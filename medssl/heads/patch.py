"""A head that looks at patches: each patch gives evidence for each class, and the strongest of it decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from medssl.backbones.backbone import Backbone, Encoding
from medssl.errors import BundleError
from medssl.heads.config import LINEAR, HeadConfig
from medssl.heads.head import ClassificationHead, Head, head_folder, read_config

PATCH = "patch"


def strongest(share: float, patches: int) -> int:
    """How many patches the top `share` of them are, at least one."""
    return max(1, round(share * patches))


def pool_evidence(evidence: torch.Tensor, share: float) -> torch.Tensor:
    """Patch evidence `[B, P, ...]` as its mean over the top share of the patches, each class by itself: `[B, ...]`."""
    count = strongest(share, evidence.shape[1])
    return evidence.mean(dim=1) if count == evidence.shape[1] else evidence.topk(count, dim=1).values.mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class PatchHeadConfig(HeadConfig):
    """All settings of a patch head; `share` is the part of the patches that decides, above 0 and up to 1 (all).

    `layer` is the block whose patches are read (1 is the first; None: the final tokens, after the last norm). Raises
    BundleError for settings that do not fit.
    """

    kind: ClassVar[str] = PATCH

    share: float
    layer: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        share, layer, width = self.share, self.layer, self.backbone.get("dimension")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise BundleError(f"share is {share!r}; allowed: above 0, up to 1 (all patches).")
        if layer is not None and (isinstance(layer, bool) or not isinstance(layer, int) or layer < 1):
            raise BundleError(f"layer is {layer!r}; allowed: null (final tokens) or a block's number from 1 on.")
        if not isinstance(width, int) or width < 1:
            raise BundleError(f"The head's backbone has dimension {width!r}; a whole number from 1 on is needed.")


class PatchHead(Head):
    """One linear layer over each patch token; a class's log-odds are the mean of its top `share` of patches.

    A patch's evidence for a class is its logit less the mean over classes, so that what speaks for all speaks for none.
    For a `layer` the encoding must come from `backbone.reading(layer)`.
    """

    config_class = PatchHeadConfig

    def __init__(self, config: PatchHeadConfig) -> None:
        super().__init__(config)
        self.share, self.layer = float(config.share), config.layer
        # Not called `linear`: the weights of one kind of head must not pass for the other's.
        self.patch_linear = torch.nn.Linear(config.backbone["dimension"], len(self.labels))
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
        """A head from your own patch classifier: `weight [C, D]`, `bias [C]`; `settings` are those of PatchHeadConfig.

        Raises BundleError if they do not fit, BackboneError for a layer that the backbone does not have.
        """
        weight, bias = torch.as_tensor(weight).float(), torch.as_tensor(bias).float()
        expected = (len(labels), backbone.dimension)
        if tuple(weight.shape) != expected or tuple(bias.shape) != expected[:1]:
            raise BundleError(
                f"weight is {list(weight.shape)} and bias {list(bias.shape)}; {len(labels)} labels on the patches of "
                f"this backbone need {list(expected)} and {list(expected[:1])}."
            )
        pooling = pooling or backbone.default_pooling
        head = cls(cls.config_class.for_backbone(backbone, pooling, labels, settings))
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


def load_head(place: str | Path, **settings: Any) -> Head:  # noqa: ANN401
    """Load a head of any kind from a folder or a Hub repo (`revision=`, `token=`, ...), strictly.

    Raises BundleError when it cannot be read, is of an unknown kind, or does not match.
    """
    folder = head_folder(place, settings)
    kind = read_config(folder, place).get("kind", LINEAR)
    if kind not in KINDS:
        raise BundleError(
            f"The head {str(place)!r} is of kind {kind!r}. Allowed: {', '.join(KINDS)}. Update medssl, or fit it again."
        )
    return KINDS[kind].from_pretrained(folder, **settings)
