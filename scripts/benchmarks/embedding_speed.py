"""Embedding from image files to vectors, against a plain transformers fp32 loop on the same model and files."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from medssl.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

SIDE, PATCH, WIDTH, BLOCKS = 224, 14, 384, 12  # DINOv2-small


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--images", type=int, default=64, help="image files in one pass (default: 64)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--data", help="an image folder to take the files from (default: noise pictures made here)")


def plain_worker(connection: Connection, folder: str, paths: list[str]) -> None:
    """The way a model card shows it, in a process of its own: the checkpoint's processor and model, image by image."""
    import torch
    from PIL import Image
    from transformers import AutoModel, ViTImageProcessor

    processor = ViTImageProcessor(
        size={"height": SIDE, "width": SIDE},
        resample=Image.Resampling.BICUBIC,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )
    model = AutoModel.from_pretrained(folder).eval()
    while connection.recv():
        started, vectors = time.perf_counter(), []
        for path in paths:
            pixels = processor(images=Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]
            with torch.no_grad():
                vectors.append(model(pixels).last_hidden_state[:, 0].numpy())
        connection.send((time.perf_counter() - started, np.concatenate(vectors)))


def bf16_peak() -> float:
    """Operations a second of a bf16 product of two 4096 x 4096 matrices, best of three."""
    import torch

    matrix, times = torch.randn(4096, 4096, dtype=torch.bfloat16), []
    for _ in range(4):
        start = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - start)
    return 2 * 4096**3 / min(times[1:])


def run(arguments: argparse.Namespace) -> dict:
    """Time both ways in turn and print the medians."""
    import torch
    from datasets import Dataset
    from PIL import Image
    from transformers import Dinov2Config, Dinov2Model

    from medssl.backbones.backbone import Backbone
    from medssl.backbones.embeddings import embed_images
    from medssl.backbones.frames import DecodedFrames
    from medssl.data.load import load_data

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        shape = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 6, "patch_size": PATCH}
        Dinov2Model(Dinov2Config(image_size=518, **shape)).save_pretrained(folder)
        if arguments.data:
            dataset = load_data(arguments.data)
            dataset = dataset.select(range(min(arguments.images, len(dataset))))
        else:
            rng, records = np.random.default_rng(0), []
            for index in range(arguments.images):
                low = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
                records.append({"path": f"{folder}/{index}.jpg", "bytes": None})
                low.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(records[-1]["path"], quality=90)
            dataset = Dataset.from_dict({"image": records})
        backbone, preprocess = Backbone.from_pretrained(folder), Preprocess(size=(SIDE, SIDE))
        paths = [record["image"]["path"] for record in dataset]
        context = get_context("spawn")
        here, there = context.Pipe()
        worker = context.Process(target=plain_worker, args=(there, folder, paths), daemon=True)
        worker.start()
        timings: dict[str, list[float]] = {"plain": [], "ours": [], "peak": []}
        for round_number in range(arguments.rounds + 1):
            here.send(True)
            plain_seconds, reference = here.recv()
            start = time.perf_counter()
            result = embed_images(DecodedFrames(dataset, preprocess), backbone, preprocess, "cls")
            seconds, peak = time.perf_counter() - start, bf16_peak()
            if round_number:  # the first round warms up
                timings["plain"].append(plain_seconds)
                timings["ours"].append(seconds)
                timings["peak"].append(peak)
        here.send(False)
        worker.join(timeout=20)
    cosine = (reference * result).sum(1) / np.linalg.norm(reference, axis=1) / np.linalg.norm(result, axis=1)
    count = len(dataset)
    rates = {name: [count / value for value in timings[name]] for name in ("plain", "ours")}
    operations = image_operations(WIDTH, BLOCKS, (SIDE // PATCH) ** 2 + 1, PATCH)
    shares = [rate * operations / top for rate, top in zip(rates["ours"], timings["peak"], strict=True)]
    ratios = [ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]
    figures = {
        "images": count,
        "rounds": arguments.rounds,
        "precision": backbone.precision,
        "plain_images_per_second": statistics.median(rates["plain"]),
        "images_per_second": statistics.median(rates["ours"]),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
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
        f"\nratio {figures['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); share of the measured bf16 "
        f"matrix-multiply peak ({figures['peak_bf16_gflops']:.0f} GFLOP/s) {figures['share_of_peak']:.0%}; "
        f"lowest cosine to fp32 {figures['lowest_cosine_to_fp32']:.5f}"
    )
    return figures


def image_operations(width: int, blocks: int, tokens: int, patch: int) -> float:
    """Operations for one image's CLS: projections, attention, patches, and the MLPs (the last for CLS alone)."""
    attention = 2 * tokens * 4 * width**2 + 4 * tokens**2 * width
    mlp = 2 * 8 * width**2
    return blocks * attention + ((blocks - 1) * tokens + 1) * mlp + 2 * (tokens - 1) * 3 * patch**2 * width
