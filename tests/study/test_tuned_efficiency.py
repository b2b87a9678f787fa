"""Tuned encoders in a study: their kind, what they are not measured on, and fewer labels."""

from types import SimpleNamespace

import numpy as np
import pytest

from medssl.backbones.backbone import Backbone
from medssl.data.load import load_data, open_data
from medssl.data.split import split_data
from medssl.pretrain.finetune import FineTuneOptions, finetune
from medssl.pretrain.finetune_recipe import FineTuneRecipe
from medssl.pretrain.finetune_run import TuningReports
from medssl.study.kinds import TUNED, kind_of
from medssl.study.plan import StudyPlan
from medssl.study.runs import BY_GROUP, BY_IMAGE
from medssl.study.study import measure_backbone, open_task
from medssl.study.tuned_efficiency import NOT_DRAWN, sampled, tuned_efficiency
from tests.conftest import TINY_TASKS

RECIPE = FineTuneRecipe(epochs=1, batch_size=6, rank=2)
QUIET = TuningReports(progress=False)


def test_a_share_leaves_validation_and_test_as_they_are(tiny_data):
    dataset = split_data(load_data(tiny_data["shapes"]))
    part = sampled(dataset, 0.5, 0)
    before, after = (np.asarray(data["split"][:]) for data in (dataset, part))
    assert set(after[before == "train"]) == {"train", NOT_DRAWN}
    assert (after[before != "train"] == before[before != "train"]).all()
    kept = set(np.asarray(part["group_id"][:])[after == "train"])
    assert not kept & set(np.asarray(part["group_id"][:])[after == NOT_DRAWN])


@pytest.mark.filterwarnings("ignore")
def test_tuning_on_few_labels_beside_the_frozen_encoder(tiny_data, tiny_backbone, tmp_path):
    dataset, task = open_data(tiny_data["shapes"], "shapes", TINY_TASKS["shapes"])
    given = (split_data(dataset), task, Backbone.from_pretrained(tiny_backbone), tmp_path, RECIPE)
    found = tuned_efficiency(*given, FineTuneOptions(reports=QUIET), shares=(0.5, 1.0), draws=2)
    assert [(item.share, item.draws) for item in found] == [(0.5, 2), (1.0, 1)]
    assert found[0].train_images < found[1].train_images == 36
    for item in found:
        assert item.gap["value"] == pytest.approx(item.tuned - item.frozen) and item.gap["n"] == 12


def test_a_tuned_encoder_is_a_kind_and_is_not_split_anew_by_image(tiny_data, tiny_backbone, tmp_path):
    tuned = finetune(tiny_data["shapes"], "shapes", tiny_backbone, tmp_path / "mine", RECIPE, reports=QUIET)
    assert kind_of(tuned.folder) == TUNED
    plan = StudyPlan(shares=(0.5,), draws=1, cache_dir=tmp_path / "cache", progress=False, audited=False)
    task = open_task(tiny_data["shapes"], plan)
    protocols = {
        place: {run.protocol for run in measure_backbone(task, Backbone.from_pretrained(place), plan).runs}
        for place in (tuned.folder, tiny_backbone)
    }
    assert protocols == {tuned.folder: {BY_GROUP}, tiny_backbone: {BY_GROUP, BY_IMAGE}}


def test_an_encoder_whose_tuning_was_stopped_is_not_measured(tiny_data, tiny_backbone, tmp_path, monkeypatch):
    dataset, task = open_data(tiny_data["shapes"], "shapes", TINY_TASKS["shapes"])
    halfway = SimpleNamespace(stopped=True, folder=tmp_path, facts={"pooling": "cls"})
    monkeypatch.setattr("medssl.study.tuned_efficiency.finetune_split", lambda *_: halfway)
    given = (split_data(dataset), task, Backbone.from_pretrained(tiny_backbone), tmp_path, RECIPE)
    with pytest.raises(KeyboardInterrupt):
        tuned_efficiency(*given, FineTuneOptions(reports=QUIET), shares=(1.0,))
