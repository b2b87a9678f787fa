"""The backbones, as data: where each comes from, how it was trained, and what it expects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medssl.images.preprocess import IMAGENET_MEAN, IMAGENET_STD

HALF = (0.5, 0.5, 0.5)
SHIPPED = Path(__file__).resolve().parents[1] / "demo"


@dataclass(frozen=True)
class BackboneSpec:
    """One known checkpoint: `dimension` is the width of its final tokens or feature map, `parameters` a count.

    A checkpoint that comes with medssl has a `folder` and no `hub_id`.
    """

    name: str
    hub_id: str | None
    supervision: str  # "self-supervised" or "supervised"
    method: str
    patch_size: int | None
    dimension: int
    parameters: int
    license: str
    input_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    folder: Path | None = None


SELF, SUPERVISED = "self-supervised", "supervised"
APACHE = "apache-2.0"

BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            "medssl-tiny", None, SELF, "DINOv2", 14, 192, 3_685_440, APACHE, 196, folder=SHIPPED / "medssl-tiny"
        ),
        BackboneSpec("dinov2-small", "facebook/dinov2-small", SELF, "DINOv2", 14, 384, 22_056_576, APACHE),
        BackboneSpec("dinov2-base", "facebook/dinov2-base", SELF, "DINOv2", 14, 768, 86_580_480, APACHE),
        BackboneSpec("dinov2-large", "facebook/dinov2-large", SELF, "DINOv2", 14, 1024, 304_368_640, APACHE),
        BackboneSpec("dinov2-giant", "facebook/dinov2-giant", SELF, "DINOv2", 14, 1536, 1_136_480_768, APACHE),
        BackboneSpec(
            "dinov2-registers-small",
            "facebook/dinov2-with-registers-small",
            SELF,
            "DINOv2 with registers",
            14,
            384,
            22_058_112,
            APACHE,
        ),
        BackboneSpec(
            "dinov2-registers-base",
            "facebook/dinov2-with-registers-base",
            SELF,
            "DINOv2 with registers",
            14,
            768,
            86_583_552,
            APACHE,
        ),
        BackboneSpec("dino-vits16", "facebook/dino-vits16", SELF, "DINO", 16, 384, 21_665_664, APACHE),
        BackboneSpec("mae-base", "facebook/vit-mae-base", SELF, "MAE", 16, 768, 85_798_656, APACHE),
        BackboneSpec(
            "vit-base",
            "google/vit-base-patch16-224",
            SUPERVISED,
            "ImageNet-21k, then ImageNet-1k labels",
            16,
            768,
            85_798_656,
            APACHE,
            mean=HALF,
            std=HALF,
        ),
        BackboneSpec(
            "deit-small",
            "facebook/deit-small-distilled-patch16-224",
            SUPERVISED,
            "ImageNet-1k labels, distilled",
            16,
            384,
            21_666_432,
            APACHE,
        ),
        BackboneSpec(
            "resnet-50",
            "microsoft/resnet-50",
            SUPERVISED,
            "ImageNet-1k labels",
            None,
            2048,
            23_508_032,
            APACHE,
        ),
        BackboneSpec(
            "convnext-tiny",
            "facebook/convnext-tiny-224",
            SUPERVISED,
            "ImageNet-1k labels",
            None,
            768,
            27_820_128,
            APACHE,
        ),
        BackboneSpec(
            "swin-tiny",
            "microsoft/swin-tiny-patch4-window7-224",
            SUPERVISED,
            "ImageNet-1k labels",
            4,
            768,
            27_519_354,
            APACHE,
        ),
    )
}
