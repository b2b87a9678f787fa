"""The explainers by name."""

from __future__ import annotations

from medssl.backbones.backbone import Backbone
from medssl.errors import BundleError
from medssl.explain.attention_rollout import AttentionRollout
from medssl.explain.control import RandomMap
from medssl.explain.evidence_map import EvidenceMap
from medssl.explain.explainer import Explainer
from medssl.explain.grad_cam import GradCAM
from medssl.explain.gradient_rollout import GradientRollout
from medssl.explain.occlusion import Occlusion
from medssl.explain.rise import RISE
from medssl.explain.vit_cx import ViTCX
from medssl.explain.vit_cx_variants import BlurredViTCX, LargeViTCX, LayersViTCX
from medssl.heads.head import Head

EXPLAINERS: dict[str, type[Explainer]] = {
    kind.method: kind
    for kind in (
        ViTCX,
        EvidenceMap,
        BlurredViTCX,
        LayersViTCX,
        LargeViTCX,
        GradientRollout,
        AttentionRollout,
        GradCAM,
        Occlusion,
        RISE,
        RandomMap,
    )
}


def make_explainer(method: str, backbone: Backbone, head: Head) -> Explainer:
    """The explainer of that name. Raises BundleError for an unknown name, or one that model or head cannot do."""
    if method not in EXPLAINERS:
        raise BundleError(f"There is no explainer {method!r}. Allowed: {', '.join(EXPLAINERS)}.")
    return EXPLAINERS[method](backbone, head)


def available_explainers(backbone: Backbone, head: Head) -> dict[str, str]:
    """Method -> title of those that model and head can do, without a forward. Raises BundleError for a mismatch."""
    head.check_backbone(backbone)
    found = {}
    for method, kind in EXPLAINERS.items():
        try:
            kind(backbone, head)
        except BundleError:
            continue
        found[method] = kind.title
    return found
