"""ViT-CX step by step, all at pixel size, against the package's: the same 2N float32 forwards, on the same images."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE, PATCH, WIDTH, BLOCKS = 224, 14, 384, 12  # DINOv2-small


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--bundle", help="a bundle to explain (default: a random model of DINOv2-small's shape)")
    parser.add_argument("--data", help="a data folder to take images from, test split first (default: noise pictures)")
    parser.add_argument("--images", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: %(default)s)")


def plain_map(explainer, image, seed: int) -> tuple[np.ndarray, int]:  # noqa: ANN001
    """The published way, step by step: every channel at pixel size, then two float32 forwards a mask."""
    import torch
    from sklearn.cluster import AgglomerativeClustering

    from medssl.explain.causal_masks import DISTANCE_THRESHOLD
    from medssl.explain.vit_cx import NOISE_STD

    backbone, head = explainer.backbone, explainer.head
    with torch.no_grad():
        pixels = backbone.pixels([image], head.preprocess)
        encoding = backbone.forward(pixels, maps=True)
        probabilities = head.classify(encoding)[0]
        index, before = int(probabilities.argmax()), float(probabilities.max())
        maps, size = encoding.maps[0].permute(2, 0, 1), pixels.shape[-2:]
        channels = torch.nn.functional.interpolate(maps[None], size=size, mode="bilinear")[0].flatten(1)
        channels = channels - channels.amin(1, keepdim=True)
        channels = channels / channels.amax(1, keepdim=True).clamp(min=1e-12)
        unit = channels / channels.norm(dim=1, keepdim=True)
        distances = (1 - unit @ unit.T).clamp(min=0).double()
        distances = ((distances + distances.T) / 2).fill_diagonal_(0).numpy()
        labels = AgglomerativeClustering(
            n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=DISTANCE_THRESHOLD
        ).fit_predict(distances)
        masks = torch.stack([channels[labels == number].sum(0) for number in range(labels.max() + 1)])
        masks = masks - masks.amin(1, keepdim=True)
        masks = (masks / masks.amax(1, keepdim=True).clamp(min=1e-12)).view(-1, 1, *size)
        generator = torch.Generator().manual_seed(seed)
        total, cover = torch.zeros(size), torch.zeros(size)
        for part in masks.split(max(1, backbone.batch_size(head.preprocess))):
            noise = NOISE_STD * torch.randn(len(part), *pixels.shape[1:], generator=generator) * (1 - part)
            shown = head.classify(backbone.forward(pixels * part + noise))[:, index]
            noisy = head.classify(backbone.forward(pixels + noise))[:, index]
            total += ((shown - noisy + before)[:, None, None] * part[:, 0]).sum(0)
            cover += part[:, 0].sum(0)
    return (total / cover.clamp(min=1e-8) / len(masks)).numpy(), len(masks)


def peak_mebibytes(work) -> float | None:  # noqa: ANN001
    """How far resident memory rises above where it was while `work()` runs; None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        work()
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return (peak - before) / 2**20


def random_explainer(folder: str):  # noqa: ANN201
    """ViT-CX on a random model of DINOv2-small's shape at 224 px with a random head."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    from medssl.backbones.backbone import Backbone
    from medssl.explain import ViTCX
    from medssl.heads.head import ClassificationHead
    from medssl.images.preprocess import Preprocess

    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 6, "patch_size": PATCH}
    Dinov2Model(Dinov2Config(image_size=518, **shape)).save_pretrained(folder)
    backbone = Backbone.from_pretrained(folder)
    preprocess = Preprocess(size=(SIDE, SIDE)).to_dict()
    weight = torch.randn(4, WIDTH) * 0.1
    return ViTCX(
        backbone, ClassificationHead.from_linear(weight, torch.zeros(4), list("abcd"), backbone, preprocess=preprocess)
    )


def pictures(data: str | None, count: int) -> list:
    """Images of a data folder, of its test split where it has one, or smooth noise."""
    from PIL import Image

    from medssl.data.load import load_data, read_record

    if data is None:
        rng = np.random.default_rng(0)
        small = [Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)) for _ in range(count)]
        return [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in small]
    dataset = load_data(data)
    order = sorted(range(len(dataset)), key=lambda index: dataset[index]["split"] != "test")
    step = max(1, sum(split == "test" for split in dataset["split"]) // count)
    return [read_record(dataset[index]) for index in order[: step * count : step]]


def run(arguments: argparse.Namespace) -> dict:
    """Time both ways and print medians, the ratio, how far low precision agrees with float32, and peak memory."""
    from medssl.bundle.bundle import Bundle

    with tempfile.TemporaryDirectory() as folder:
        if arguments.bundle:
            explainer = Bundle.load(arguments.bundle).explainer
        else:
            explainer = random_explainer(folder)
        images = pictures(arguments.data, arguments.images)
        # The first explanation: later ones reuse memory that is already held.
        memory = peak_mebibytes(lambda: explainer.explain(images[0]))
        plain_map(explainer, images[0], 0)
        timings: dict[str, list[float]] = {"plain": [], "default": []}
        masks, passes, agreement = [], [], []
        for round_number in range(arguments.rounds):
            for image in images:
                start = time.perf_counter()
                plain_map(explainer, image, round_number)
                timings["plain"].append(time.perf_counter() - start)
                start = time.perf_counter()
                found = explainer.explain(image, seed=round_number)
                timings["default"].append(time.perf_counter() - start)
                if round_number == 0:
                    masks.append(found.masks)
                    low_precision = explainer.explain(image, seed=round_number, low_precision=True)
                    agreement.append(float(np.corrcoef(found.saliency.ravel(), low_precision.saliency.ravel())[0, 1]))
                    passes.append(found.forward_passes)
    ratios = [plain / ours for plain, ours in zip(timings["plain"], timings["default"], strict=True)]
    figures = {
        "images": len(images),
        "rounds": arguments.rounds,
        "masks": [min(masks), max(masks)],
        "forward_passes": [min(passes), max(passes)],
        "plain_seconds": statistics.median(timings["plain"]),
        "default_seconds": statistics.median(timings["default"]),
        "default_seconds_largest": max(timings["default"]),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "low_precision": explainer.backbone.precision,
        "correlation_with_fp32": [min(agreement), statistics.median(agreement)],
        "peak_mebibytes": memory,
    }
    print(f"{len(images)} images x {arguments.rounds} rounds, {min(masks)} to {max(masks)} masks, ", end="")
    print(f"{min(passes)} to {max(passes)} forwards")
    print(f"plain 2N forwards, float32: {figures['plain_seconds']:.2f} s an image")
    print(f"default (float32): {figures['default_seconds']:.2f} s, ", end="")
    print(f"at most {figures['default_seconds_largest']:.2f} s; ", end="")
    print(f"ratio {figures['ratio']:.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    print(f"correlation of {explainer.backbone.precision} with float32: ", end="")
    print(f"median {statistics.median(agreement):.4f}, smallest {min(agreement):.4f}")
    print(
        "peak memory of a first explanation above the loaded model: "
        + ("not known" if memory is None else f"{memory:.0f} MiB")
    )
    return figures
