"""ViT-CX at the published algorithm's cost against the package's: the same 2N forwards, on the same images.

The plain way is a copy of what the authors' code does: a deep copy of the model and a backward for the feature maps,
all channels compared at pixel size, float32 forwards in batches of 50. Beside it the package's default (low precision
where the device has it), its float32 and, where the processor has it, its int8, each with how far its maps agree with
the float32 ones.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE, PATCH, WIDTH, BLOCKS = 224, 14, 384, 12  # DINOv2-small
PUBLISHED_BATCH = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--bundle", help="a bundle to explain (default: a random model of DINOv2-small's shape)")
    parser.add_argument("--data", help="a data folder to take images from, test split first (default: noise pictures)")
    parser.add_argument("--images", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: %(default)s)")


def published_maps(explainer, pixels) -> tuple:  # noqa: ANN001
    """The feature maps `[C, h, w]` and the probabilities `[C]`, by a copy of the model and a backward, as published."""
    import torch

    from medssl.backbones.backbone import block_norms, captured

    backbone, head = explainer.backbone, explainer.head
    with torch.enable_grad():
        model = copy.deepcopy(backbone.model).requires_grad_(True)
        layer = block_norms(model)[0] if backbone.map_layer is not None else torch.nn.Identity()
        with captured(layer) as kept:
            hidden = backbone._hidden(pixels, model)
        encoding = backbone._split(hidden, *pixels.shape[-2:])
        if head.layer is not None or backbone.read_blocks:
            encoding = backbone.forward(pixels)
        probabilities = head.classify(encoding)[0]
        if probabilities.requires_grad:
            probabilities.max().backward()
    maps = backbone._grid(kept[-1], *pixels.shape[-2:]) if kept else encoding.patches
    return maps[0].detach().cpu().permute(2, 0, 1), probabilities.detach()


def published_masks(maps, size: tuple[int, int]):  # noqa: ANN001, ANN201
    """The masks `[N, 1, h, w]` of feature maps `[C, h, w]`: every channel at pixel size, compared there."""
    import torch
    from sklearn.cluster import AgglomerativeClustering

    from medssl.explain.causal_masks import DISTANCE_THRESHOLD

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
    return (masks / masks.amax(1, keepdim=True).clamp(min=1e-12)).view(-1, 1, *size)


def plain_map(explainer, image, seed: int) -> tuple[np.ndarray, int]:  # noqa: ANN001
    """The map in the published way, step by step, and how many masks it took."""
    import torch

    from medssl.explain.vit_cx import NOISE_STD

    backbone, head = explainer.backbone, explainer.head
    pixels = backbone.pixels([image], head.preprocess)
    maps, probabilities = published_maps(explainer, pixels)
    index, before, size = int(probabilities.argmax()), float(probabilities.max()), pixels.shape[-2:]
    with torch.no_grad():
        masks = published_masks(maps, size)
        generator = torch.Generator().manual_seed(seed)
        total, cover = torch.zeros(size), torch.zeros(size)
        for part in masks.split(PUBLISHED_BATCH):
            noise = NOISE_STD * torch.randn(len(part), *pixels.shape[1:], generator=generator) * (1 - part)
            shown = head.classify(backbone.forward(pixels * part + noise))[:, index]
            noisy = head.classify(backbone.forward(pixels + noise))[:, index]
            total += ((shown - noisy + before)[:, None, None] * part[:, 0]).sum(0)
            cover += part[:, 0].sum(0)
    return (total / cover.clamp(min=1e-8) / len(masks)).numpy(), len(masks)


def in_int8(explainer):  # noqa: ANN001, ANN201
    """The same explainer with scores in int8."""
    from medssl.backbones.precision import INT8

    backbone = copy.copy(explainer.backbone)
    vars(backbone).update(score_precision=INT8)
    vars(backbone).pop("_int8_model", None)
    return type(explainer)(backbone, explainer.head)


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


def compare(explainer, images: list, rounds: int) -> dict:  # noqa: ANN001
    """Seconds of each way, in turn on each image, and how far each other one agrees with the float32 map."""
    from medssl.backbones.precision import native_int8

    ways = {"default": (explainer, True), "float32": (explainer, False)}
    if native_int8(explainer.backbone.device):
        ways["int8"] = (in_int8(explainer), True)
    seconds: dict[str, list[float]] = {"plain": [], **{name: [] for name in ways}}
    agreement: dict[str, list[float]] = {name: [] for name in ("plain", *ways) if name != "float32"}
    counts: dict[str, list[int]] = {"masks": [], "passes": []}
    for round_number in range(rounds):
        for image in images:
            started = time.perf_counter()
            plain, _ = plain_map(explainer, image, round_number)
            seconds["plain"].append(time.perf_counter() - started)
            found = {}
            for name, (way, low_precision) in ways.items():
                started = time.perf_counter()
                found[name] = way.explain(image, seed=round_number, low_precision=low_precision)
                seconds[name].append(time.perf_counter() - started)
            exact = found["float32"].saliency.ravel()
            others = {"plain": plain, **{name: one.saliency for name, one in found.items() if name in agreement}}
            for name, other in others.items():
                agreement[name].append(float(np.corrcoef(exact, other.ravel())[0, 1]))
            counts["masks"].append(found["default"].masks)
            counts["passes"].append(found["default"].forward_passes)
    return {"seconds": seconds, "agreement": agreement, **counts}


def run(arguments: argparse.Namespace) -> dict:
    """Time every way and print medians, ratios to the plain way, agreement with the exact maps, and peak memory."""
    from medssl.bundle.bundle import Bundle

    with tempfile.TemporaryDirectory() as folder:
        explainer = Bundle.load(arguments.bundle).explainer if arguments.bundle else random_explainer(folder)
        images = pictures(arguments.data, arguments.images)
        # The first explanation: later ones reuse memory that is already held.
        memory = peak_mebibytes(lambda: explainer.explain(images[0]))
        plain_map(explainer, images[0], 0)
        found = compare(explainer, images, arguments.rounds)
    seconds, agreement, masks, passes = (found[name] for name in ("seconds", "agreement", "masks", "passes"))
    ratios = {
        name: [plain / ours for plain, ours in zip(seconds["plain"], seconds[name], strict=True)]
        for name in seconds
        if name != "plain"
    }
    figures = {
        "images": len(images),
        "rounds": arguments.rounds,
        "masks": [min(masks), max(masks)],
        "forward_passes": [min(passes), max(passes)],
        **{f"{name}_seconds": statistics.median(values) for name, values in seconds.items()},
        "default_seconds_largest": max(seconds["default"]),
        "ratio": statistics.median(ratios["default"]),
        "ratio_range": [min(ratios["default"]), max(ratios["default"])],
        "low_precision": explainer.backbone.precision,
        "correlation_with_fp32": [min(agreement["default"]), statistics.median(agreement["default"])],
        "plain_correlation": [min(agreement["plain"]), statistics.median(agreement["plain"])],
        "peak_mebibytes": memory,
    }
    if "int8" in agreement:
        figures["int8_correlation_with_fp32"] = [min(agreement["int8"]), statistics.median(agreement["int8"])]
    print(f"{len(images)} images x {arguments.rounds} rounds, {min(masks)} to {max(masks)} masks, ", end="")
    print(f"{min(passes)} to {max(passes)} forwards\n")
    print("| way | s an image (median) | times as fast | correlation with the float32 map: median, smallest |")
    print("| --- | ---: | --- | --- |")
    print(
        f"| published cost, float32 | {figures['plain_seconds']:.2f} | 1 | {spread(agreement['plain'])} (other noise) |"
    )
    names = {
        "default": f"medssl, as it is ({explainer.backbone.precision})",
        "float32": "medssl in float32",
        "int8": "medssl in int8",
    }
    for name in ratios:
        title = names[name]
        agreed = "1" if name == "float32" else spread(agreement[name])
        low, middle, high = min(ratios[name]), statistics.median(ratios[name]), max(ratios[name])
        print(f"| {title} | {figures[f'{name}_seconds']:.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) | {agreed} |")
    print(
        "\npeak memory of a first explanation above the loaded model: "
        + ("not known" if memory is None else f"{memory:.0f} MiB")
    )
    return figures


def spread(values: list[float]) -> str:
    """The median and the smallest."""
    return f"{statistics.median(values):.4f}, {min(values):.4f}"
