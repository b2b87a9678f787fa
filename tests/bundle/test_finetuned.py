"""A build after tuning: the better encoder is taken, the record says why, and every part belongs to it."""

from dataclasses import replace

import pytest

from medssl.backbones.backbone import Backbone
from medssl.bundle import finetuned
from medssl.bundle.bundle import Bundle
from medssl.bundle.finetuned import TuningPlan, build_finetuned
from medssl.bundle.stored_metrics import check_metrics
from medssl.errors import BundleError
from medssl.pretrain.finetune_recipe import FineTuneRecipe
from tests.conftest import TINY_TASKS, UNCHOSEN, sample

RECIPE = FineTuneRecipe(epochs=1, batch_size=12, rank=2)
SHAPES = {"labels": TINY_TASKS["shapes"], "progress": False, **UNCHOSEN}


def build(data, backbone, out, plan, **settings):
    return build_finetuned(data["shapes"], "shapes", backbone, out, plan, **{**SHAPES, **settings})


def call_it(better, monkeypatch):
    """Let validation call the tuned encoder better, or not, whatever it is."""
    tune = finetuned.finetune

    def judged(*given):
        tuned = tune(*given)
        return replace(tuned, facts={**tuned.facts, "verdict": {**tuned.verdict, "better": better}})

    monkeypatch.setattr(finetuned, "finetune", judged)


@pytest.mark.parametrize(
    ("better", "anyway", "used"), [(True, False, "tuned"), (False, False, "frozen"), (False, True, "tuned")]
)
def test_the_encoder_that_is_taken(better, anyway, used, tiny_data, tiny_backbone, tmp_path, monkeypatch):
    call_it(better, monkeypatch)
    plan = TuningPlan(tmp_path / "mine", RECIPE, anyway)
    build(tiny_data, tiny_backbone, tmp_path / "bundle", plan, cache_dir=tmp_path / "cache")
    bundle = Bundle.load(tmp_path / "bundle")
    folders = {"tuned": tmp_path / "mine", "frozen": tiny_backbone}
    assert bundle.head.backbone["revision"] == Backbone.from_pretrained(folders[used]).revision
    record = bundle.metrics["finetune"]
    assert (record["used"], record["anyway"], record["mode"]) == (used, anyway, "lora")
    assert f"This bundle is on the {used} encoder" in bundle.card and "Fine-tuning (lora)" in bundle.card
    analysis = bundle.analyze(sample(tiny_data["shapes"], "dots"), top_k=3)
    assert analysis.explanation.heatmap.shape == (64, 64) and len(analysis.cases) == 3


def test_a_stopped_run_builds_nothing(tiny_data, tiny_backbone, tmp_path, monkeypatch):
    tune = finetuned.finetune

    def stopped(*given):
        tuned = tune(*given)
        return replace(tuned, facts={**tuned.facts, "stopped": True})

    monkeypatch.setattr(finetuned, "finetune", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(tiny_data, tiny_backbone, tmp_path / "bundle", TuningPlan(tmp_path / "mine", RECIPE))
    assert not (tmp_path / "bundle").exists() and (tmp_path / "mine" / "model.safetensors").exists()


def test_a_damaged_record_is_refused_by_its_field(tiny_bundle_folders):
    bundle = Bundle.load(tiny_bundle_folders["shapes"])
    record = {"mode": "lora", "used": "both", "anyway": False, "verdict": {}}
    with pytest.raises(BundleError, match=r"finetune\.used is 'both'"):
        check_metrics({**bundle.metrics, "finetune": record}, "metrics.json")
