"""Schedules, weight-decay groups, and what the journal says of collapse."""

import csv

import pytest
import torch
from torch import nn

from medssl.pretrain.encoder import Encoder
from medssl.pretrain.journal import Journal, effective_rank
from medssl.pretrain.schedule import cosine, learning_rate, parameter_groups


def test_learning_rate_warms_up_peaks_and_anneals():
    rates = [learning_rate(step, 100, 0.1, 1e-3, 1e-6) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4) and max(rates) == pytest.approx(1e-3) and rates[-1] == pytest.approx(1e-6)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_cosine_stays_at_its_ends():
    assert cosine(2, 5, 0) == 2 and cosine(2, 5, 1) == 5 and cosine(2, 5, 3) == 5 and cosine(2, 5, 0.5) == 3.5


def test_only_matrices_decay():
    encoder = Encoder.create("medssl-tiny", 0)
    groups = {group["decays"]: group["params"] for group in parameter_groups(encoder)}
    kept = {name for name, parameter in encoder.named_parameters() if any(parameter is p for p in groups[False])}
    assert "model.embeddings.position_embeddings" in kept and "model.embeddings.cls_token" in kept
    assert all("weight" in name and "norm" not in name for name, p in encoder.named_parameters() if name not in kept)
    assert sum(len(parameters) for parameters in groups.values()) == len(list(encoder.parameters()))


def test_frozen_weights_are_in_no_group():
    layer = nn.Linear(3, 3).requires_grad_(False)
    assert parameter_groups(layer) == []


def test_effective_rank_counts_directions():
    draw = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    flat = draw * torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0])
    assert effective_rank(draw) == pytest.approx(8, abs=0.2)
    assert effective_rank(flat) == pytest.approx(3, abs=0.1)
    assert effective_rank(torch.ones(10, 4)) == pytest.approx(1)


def test_collapse_is_said_once_and_only_then(tmp_path):
    journal = Journal(tmp_path, 0)
    well = {"step": 10, "effective_rank": 30.0, "usage_entropy": 7.0}
    assert journal.collapse(well, 7.6) is None
    said = journal.collapse({"step": 20, "effective_rank": 1.4, "usage_entropy": 0.1}, 7.6)
    assert "step 20" in said and "1.4 directions" in said and "lower learning rate" in said
    assert journal.collapse({"step": 30, "effective_rank": 1.0}, None) is None


def test_journal_drops_rows_after_the_step_it_resumes_from(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in (10, 20, 30):
        journal.add({"step": step, "images": step * 8, "loss": 1 / step, "effective_rank": 5.0})
    resumed = Journal(tmp_path, 20)
    resumed.add({"step": 30, "images": 240, "loss": 0.5, "effective_rank": 6.0, "knn_eye": 0.5})
    resumed.plot()
    with (tmp_path / "log.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["10", "20", "30"] and rows[2]["loss"] == "0.5"
    assert rows[0]["knn_eye"] == "" and rows[2]["knn_eye"] == "0.5"
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")
