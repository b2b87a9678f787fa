"""Embedding from image files to vectors, against a plain transformers fp32 loop on the same model and files."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--images", type=int, default=64, help="image files in one pass (default: 64)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--data", help="an image folder to take the files from (default: noise pictures made here)")


def run(arguments: argparse.Namespace) -> dict:
    """Time both ways in turn and print the medians."""
    import torch
    from datasets import Dataset
    from PIL import Image
    from transformers import AutoModel, Dinov2Config, Dinov2Model, ViTImageProcessor

    from medssl.backbones import Backbone
    from medssl.data import load_data
    from medssl.embeddings import embed_images

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        config = Dinov2Config(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14, image_size=518
        )
        Dinov2Model(config).save_pretrained(folder)
        if arguments.data:
            dataset = load_data(arguments.data)
            dataset = dataset.select(range(min(arguments.images, len(dataset))))
        else:
            for index in range(arguments.images):
                low = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
                Image.fromarray(low).resize((224, 224), Image.Resampling.BICUBIC).save(
                    f"{folder}/{index}.jpg", quality=90
                )
            paths = [{"path": f"{folder}/{index}.jpg", "bytes": None} for index in range(arguments.images)]
            dataset = Dataset.from_dict({"image": paths})
        backbone = Backbone.from_pretrained(folder)
        preprocess = backbone.preprocess.__class__(size=(224, 224))
        # The way a model card shows: the checkpoint's processor and model, image by image.
        processor = ViTImageProcessor(
            size={"height": 224, "width": 224},
            resample=Image.Resampling.BICUBIC,
            image_mean=list(preprocess.mean),
            image_std=list(preprocess.std),
        )
        plain_model = AutoModel.from_pretrained(folder).eval()

        def plain() -> np.ndarray:
            vectors = []
            for record in dataset:
                image = Image.open(record["image"]["path"]).convert("RGB")
                pixels = processor(images=image, return_tensors="pt")["pixel_values"]
                with torch.no_grad():
                    vectors.append(plain_model(pixels).last_hidden_state[:, 0].numpy())
            return np.concatenate(vectors)

        def ours() -> np.ndarray:
            return embed_images(dataset, backbone, preprocess, "cls")

        matrix = torch.randn(4096, 4096, dtype=torch.bfloat16)

        def peak() -> float:
            times = []
            for _ in range(3):
                start = time.perf_counter()
                matrix @ matrix
                times.append(time.perf_counter() - start)
            return 2 * 4096**3 / min(times)

        ours(), plain(), peak()
        timings: dict[str, list[float]] = {"plain": [], "ours": [], "peak": []}
        for _ in range(arguments.rounds):
            for name, function in (("plain", plain), ("ours", ours)):
                start = time.perf_counter()
                result = function()
                timings[name].append(time.perf_counter() - start)
                if name == "plain":
                    reference = result
            timings["peak"].append(peak())
        cosine = (reference * result).sum(1) / np.linalg.norm(reference, axis=1) / np.linalg.norm(result, axis=1)
    count = len(dataset)
    rates = {name: [count / value for value in timings[name]] for name in ("plain", "ours")}
    operations = image_operations(384, 12, 257, 14)
    shares = [rate * operations / top for rate, top in zip(rates["ours"], timings["peak"], strict=True)]
    figures = {
        "images": count,
        "precision": backbone.precision,
        "plain_images_per_second": statistics.median(rates["plain"]),
        "images_per_second": statistics.median(rates["ours"]),
        "ratio": statistics.median(a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)),
        "peak_bf16_gflops": statistics.median(timings["peak"]) / 1e9,
        "share_of_peak": statistics.median(shares),
        "lowest_cosine_to_fp32": float(cosine.min()),
        "cpu_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "folder": Path(arguments.data).name if arguments.data else "generated",
    }
    print("| way | img/s (median) |\n| --- | --- |")
    print(f"| plain transformers fp32 loop | {figures['plain_images_per_second']:.1f} |")
    print(f"| medssl ({backbone.precision}) | {figures['images_per_second']:.1f} |")
    print(
        f"\nratio {figures['ratio']:.2f}; share of the measured bf16 matrix-multiply peak "
        f"({figures['peak_bf16_gflops']:.0f} GFLOP/s) {figures['share_of_peak']:.0%}; "
        f"lowest cosine to fp32 {figures['lowest_cosine_to_fp32']:.5f}"
    )
    return figures


def image_operations(width: int, blocks: int, tokens: int, patch: int) -> float:
    """Floating-point operations of one image through a ViT: projections, MLP of ratio 4, attention, patch embedding."""
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    return blocks * block + 2 * (tokens - 1) * 3 * patch**2 * width
