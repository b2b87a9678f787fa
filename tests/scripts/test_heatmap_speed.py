"""The benchmark of ViT-CX's speed compares with the published way, and says what it measured."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from medssl.bundle.bundle import Bundle
from medssl.data.load import load_data, read_record
from medssl.explain import ViTCX
from medssl.heads.head import ClassificationHead

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"))

import heatmap_speed  # noqa: E402


def test_the_plain_way_it_times_gives_the_published_map(tiny_bundle_folders, tiny_data):
    explainer = Bundle.load(tiny_bundle_folders["shapes"]).explainer
    image = read_record(load_data(tiny_data["shapes"])[0])
    plain, masks = heatmap_speed.plain_map(explainer, image, 0)
    published = explainer.explain(image, noise="full", low_precision=False, max_masks=None)
    assert masks == published.masks
    assert np.corrcoef(plain.ravel(), published.saliency.ravel())[0, 1] > 0.99


def test_a_reading_of_several_blocks_is_explained_too(tiny_bundle_folders, tiny_data):
    backbone = Bundle.load(tiny_bundle_folders["shapes"]).backbone
    weight = torch.randn(3, 2 * backbone.dimension, generator=torch.Generator().manual_seed(0))
    head = ClassificationHead.from_linear(weight, torch.zeros(3), list("abc"), backbone, "cls1+cls")
    explainer, image = ViTCX(backbone, head), read_record(load_data(tiny_data["shapes"])[0])
    plain, masks = heatmap_speed.plain_map(explainer, image, 0)
    published = explainer.explain(image, low_precision=False, max_masks=None)
    assert masks == published.masks
    assert np.corrcoef(plain.ravel(), published.saliency.ravel())[0, 1] > 0.99


def test_it_reports_times_ratio_agreement_and_memory(tiny_bundle_folders, tiny_data, capsys):
    parser = argparse.ArgumentParser()
    heatmap_speed.add_arguments(parser)
    given = ["--bundle", str(tiny_bundle_folders["shapes"]), "--data", str(tiny_data["shapes"])]
    figures = heatmap_speed.run(parser.parse_args([*given, "--images", "2", "--rounds", "1"]))
    assert json.loads(json.dumps(figures)) == figures
    assert figures["images"] == 2 and figures["plain_seconds"] > 0
    assert figures["ratio_range"][0] <= figures["ratio"] <= figures["ratio_range"][1]
    assert figures["correlation_with_fp32"][0] > 0.95 and "MiB" in capsys.readouterr().out
