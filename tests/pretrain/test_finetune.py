"""Fine-tuning from the outside: it learns, resumes exactly, merges exactly, and is honest where it fails."""

import csv
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.bundle.build import build_bundle
from medssl.data.load import load_data, read_record
from medssl.errors import DataError, ImageError, PretrainError
from medssl.images.preprocess import Preprocess
from medssl.pretrain import finetune_run
from medssl.pretrain.finetune import embed_sides, finetune
from medssl.pretrain.finetune_facts import TUNING_FILE, check_unseen, read_tuning
from medssl.pretrain.finetune_guard import compare_encoders, describe_verdict
from medssl.pretrain.finetune_images import open_images, split_as_built
from medssl.pretrain.finetune_model import FineTuned, StartingLayer
from medssl.pretrain.finetune_recipe import PEAKS, FineTuneRecipe
from medssl.pretrain.finetune_run import TuningReports, average_share, balanced_weights
from medssl.pretrain.views import POLICIES, ViewPolicy
from tests import warm
from tests.conftest import ROOT, UNCHOSEN, make_folder
from tests.models import save_model

QUIET = TuningReports(progress=False)
LABELS = ("dots", "plain", "stripes")
# Random encoders know nothing of brightness: what they gain must not be lost on changed views.
STILL = ViewPolicy(rotation=0, brightness=0, contrast=0, saturation=0, blur=0, noise=0)


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are slower on two threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("tuned") / "shapes", LABELS, seed=0, count=90)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Small random encoders by family."""
    root = tmp_path_factory.mktemp("encoders")
    return {name: save_model(name, root / name) for name in ("vit", "dinov2", "dinov2-registers", "resnet", "swin")}


def recipe(**changes):
    return FineTuneRecipe(**{"epochs": 2, "batch_size": 18, "blocks": 1, "rank": 4, **changes})


def tune(data, backbone, out, reports=QUIET, asked=None, **changes):
    return finetune(data, "shapes", backbone, out, asked or recipe(**changes), reports=reports)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("family", "mode"),
    [("vit", "lora"), ("dinov2", "full"), ("dinov2-registers", "last-blocks"), ("resnet", "last-blocks")],
)
def test_the_result_is_a_backbone_with_its_facts_and_card(family, mode, data, encoders, tmp_path):
    # So high a rate that the first epoch moves weights; patience so that the best may still be the start.
    tuned = tune(data, encoders[family], tmp_path / "mine", mode=mode)
    backbone, base = Backbone.from_pretrained(tmp_path / "mine"), Backbone.from_pretrained(encoders[family])
    assert backbone.preprocess == base.preprocess and backbone.dimension == base.dimension
    facts = json.loads((tmp_path / "mine" / TUNING_FILE).read_text())
    assert facts["images"] == {"train": 54, "val": 18} and len(facts["seen"]) == 72
    assert facts["base"]["revision"] == base.revision and facts["base"]["name"] == family
    assert str(encoders[family].parent) not in (tmp_path / "mine" / "README.md").read_text()
    assert len(facts["history"]) == facts["epochs_run"] + 1 == 3
    assert tuned.better is facts["verdict"]["better"]
    with (tmp_path / "mine" / "run" / "log.csv").open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["0", "1", "2"]
    assert (tmp_path / "mine" / "run" / "log.png").stat().st_size > 1000


def test_tuning_helps_where_there_is_something_to_learn(encoders, tmp_path, monkeypatch):
    monkeypatch.setitem(POLICIES, "still", STILL)
    many = make_folder(tmp_path / "shapes", LABELS, seed=0, count=360)
    still = {"views": "still", "smallest_crop": 1.0}
    asked = recipe(mode="full", epochs=15, patience=15, batch_size=12, learning_rate=1e-3, **still)
    tuned = tune(many, encoders["vit"], tmp_path / "mine", asked=asked)
    verdict = tuned.verdict
    assert verdict["better"] and verdict["tuned"]["value"] > verdict["frozen"]["value"] + 0.05
    assert describe_verdict(verdict).startswith("Tuning helped")
    assert 0 < tuned.facts["best_epoch"] <= tuned.facts["epochs_run"]


def test_random_labels_end_at_chance_and_the_guard_says_so(encoders, tmp_path):
    """Every picture is of one kind; what the labels say is drawn."""
    folder = make_folder(tmp_path / "noise", ("plain", "plain", "plain"), seed=3, count=150)
    lines = (folder / "metadata.csv").read_text().splitlines()
    random = np.random.default_rng(0)
    drawn = [line.split(",", 2) for line in lines[1:]]
    text = [lines[0], *(f"{name},{LABELS[random.integers(3)]},{rest}" for name, _, rest in drawn)]
    (folder / "metadata.csv").write_text("\n".join(text) + "\n")
    tuned = tune(folder, encoders["vit"], tmp_path / "mine", mode="full", epochs=6, learning_rate=1e-3, patience=6)
    verdict = tuned.verdict
    assert not tuned.better and not describe_verdict(verdict).startswith("Tuning helped")
    assert verdict["tuned"]["low"] < 1 / 3 < verdict["tuned"]["high"]


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize(("family", "mode"), [("dinov2", "lora"), ("resnet", "full")])
def test_a_run_that_breaks_off_goes_on_to_the_same_weights(family, mode, data, encoders, tmp_path, monkeypatch):
    asked = recipe(mode=mode, epochs=3, learning_rate=1e-3)
    whole = tune(data, encoders[family], tmp_path / "whole", asked=asked)
    take, taken = finetune_run.take_step, []

    def break_off(run, step):
        taken.append(step)
        if len(taken) == 6:
            raise KilledError
        return take(run, step)

    monkeypatch.setattr(finetune_run, "take_step", break_off)
    with pytest.raises(KilledError):
        tune(data, encoders[family], tmp_path / "broken", TuningReports(2, progress=False), asked)
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    again = tune(data, encoders[family], tmp_path / "broken", TuningReports(2, progress=False), asked)
    assert taken[6] == 4  # the last checkpoint is two steps old at most
    assert weights(again.folder) == weights(whole.folder)
    for name in ("history", "best_epoch", "verdict"):
        assert again.facts[name] == whole.facts[name]


def test_killed_in_another_process_and_started_again(data, encoders, tmp_path):
    def command(out):
        return [
            *(str(ROOT / "scripts" / "finetune.py"), "--data", str(data), "--task", "shapes"),
            *("--backbone", str(encoders["vit"]), "--out", str(out), "--epochs", "40", "--patience", "40"),
            *("--batch-size", "18", "--rank", "4", "--quiet"),
        ]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = warm.start(command(killed))
    checkpoint = killed / "run" / "checkpoint.pt"
    end = time.monotonic() + 500
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists() and not (killed / "model.safetensors").exists()
    for out, run in ((killed, warm.run), (whole, warm.run_fresh)):
        done = run(command(out))
        assert done.returncode == 0, done.stderr
    assert weights(killed) == weights(whole)


def test_stop_leaves_the_best_so_far_and_the_same_call_goes_on(data, encoders, tmp_path, monkeypatch):
    asked = recipe(epochs=3, learning_rate=1e-3)
    whole = tune(data, encoders["vit"], tmp_path / "whole", asked=asked)
    take = finetune_run.take_step

    def ask_to_stop(run, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return take(run, step)

    monkeypatch.setattr(finetune_run, "take_step", ask_to_stop)
    stopped = tune(data, encoders["vit"], tmp_path / "mine", asked=asked)
    assert stopped.stopped and stopped.facts["epochs_run"] == 1
    assert Backbone.from_pretrained(tmp_path / "mine").dimension == 48
    monkeypatch.setattr(finetune_run, "take_step", take)
    done = tune(data, encoders["vit"], tmp_path / "mine", asked=asked)
    assert not done.stopped and weights(done.folder) == weights(whole.folder)


def test_what_is_kept_is_the_average_of_the_steps(data, encoders, tmp_path, monkeypatch):
    """Beside a plain average of all steps' weights, each step's share what `average_share` says."""
    take, seen = finetune_run.take_step, []

    def noted(run, step):
        loss = take(run, step)
        seen.append(run.state.model.tuned_weights())
        return loss

    monkeypatch.setattr(finetune_run, "take_step", noted)
    monkeypatch.setattr(finetune_run, "validate", lambda run: {"val_loss": -len(seen), "val_balanced_accuracy": 0.5})
    kept = {}
    monkeypatch.setattr(finetune_run, "is_over", lambda run, done: kept.update(run.state.best) or done >= 9)
    tune(data, encoders["vit"], tmp_path, mode="full", epochs=3, average=2.0)
    assert len(seen) == 9 and average_share(0, 6) == 9 / 11 and average_share(1000, 6) == 1 / 6
    expected = seen[0]
    for step, now in enumerate(seen[1:], 1):
        share = average_share(step, 2 * 3)
        expected = {name: (1 - share) * value + share * now[name] for name, value in expected.items()}
    for name, value in kept.items():
        torch.testing.assert_close(value, expected[name])
    assert any((kept[name] != seen[-1][name]).any() for name in kept)
    assert average_share(5, 0) == average_share(5, 1) == 1  # none: the last step's weights


def test_validation_chooses_the_reading_that_is_tuned(data, encoders, tmp_path):
    """What the whole embedding says of each reading is what the reading alone says."""
    for family, allowed in (("vit", {"cls", "mean", "cls+mean"}), ("resnet", {"mean"})):
        backbone = Backbone.from_pretrained(encoders[family])
        changes = {"mode": "full", "epochs": 1, "learning_rate": 1e-6}
        out = tmp_path / family
        chosen = finetune(data, "shapes", backbone, out, recipe(**changes), pooling="auto", reports=QUIET)
        assert chosen.facts["pooling"] in allowed
        alone = tmp_path / f"{family}-alone"
        asked = finetune(
            data, "shapes", backbone, alone, recipe(**changes), pooling=chosen.facts["pooling"], reports=QUIET
        )
        assert asked.facts["history"][0] == pytest.approx(chosen.facts["history"][0], rel=1e-5)
        assert asked.verdict["frozen"] == chosen.verdict["frozen"]


def test_a_share_of_the_images_enters_as_it_will_be_seen(data, encoders, tmp_path, monkeypatch):
    made, shares = finetune_run.training_pixels, []

    def noted(run, rows, step, part):
        views = made(run, rows, step, part)
        plain = run.standardized(run.images.batch(rows).float() / 255)
        shares.append(float((views == plain).flatten(1).all(dim=1).float().mean()))
        return views

    monkeypatch.setattr(finetune_run, "training_pixels", noted)
    for untouched in (0.0, 0.5, 1.0):
        tune(data, encoders["vit"], tmp_path / str(untouched), epochs=2, untouched=untouched)
    none, half, every = np.array(shares).reshape(3, -1)
    assert none.max() == 0 and every.min() == 1 and 0.3 < half.mean() < 0.7


def test_patience_ends_a_run(data, encoders, tmp_path, monkeypatch):
    losses = iter([1.0, 0.5, 0.7, 0.6, 0.1])
    monkeypatch.setattr(finetune_run, "validate", lambda run: {"val_loss": next(losses), "val_balanced_accuracy": 0.5})
    tuned = tune(data, encoders["vit"], tmp_path, epochs=9, patience=2)
    assert (tuned.facts["epochs_run"], tuned.facts["best_epoch"]) == (3, 1)


def model_of(folder, data, tmp_path, **changes):
    """A model at its start with the images it is tuned on."""
    embedder = Embedder.of(Backbone.from_pretrained(folder, precision="fp32"))
    images = open_images(split_as_built(load_data(data), 0, False), embedder.preprocess, tmp_path / "images", False)
    sides = embed_sides(images, embedder)
    model = FineTuned(embedder.backbone, embedder.pooling, StartingLayer.fitted(sides.train, sides.validation, 3))
    model.choose_weights(recipe(**changes))
    return model.eval(), embedder, images


@pytest.mark.parametrize("family", ["vit", "dinov2", "dinov2-registers"])
def test_merged_adapters_say_what_they_said_before(family, data, encoders, tmp_path):
    model, embedder, images = model_of(encoders[family], data, tmp_path)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.05)
        pixels = torch.from_numpy(embedder.preprocess.normalize(images.pixels[:6]))
        start = embedder.backbone.forward(pixels).pool("cls")
        apart = model.encoder(pixels)[0]
        model.merge()
        merged = model.encoder(pixels)[0]
    assert (apart - start).abs().max() > 0.1  # the adapters do something
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-4)
    assert not [name for name, _ in model.named_parameters() if "lora" in name]


@pytest.mark.parametrize("family", ["vit", "dinov2", "resnet"])
def test_it_starts_as_the_head_on_the_frozen_encoder(family, data, encoders, tmp_path):
    mode = "full" if family == "resnet" else "lora"
    model, embedder, images = model_of(encoders[family], data, tmp_path, mode=mode)
    sides = embed_sides(images, embedder)
    start = StartingLayer.fitted(sides.train, sides.validation, 3)
    expected = (sides.validation.embeddings - start.center) / start.scale @ start.weight.T + start.bias
    pixels = torch.from_numpy(embedder.preprocess.normalize(images.pixels[images.validation]))
    with torch.no_grad():
        np.testing.assert_allclose(model(pixels).numpy(), expected, rtol=1e-3, atol=1e-3)


def test_the_last_blocks_alone_are_tuned_and_lower_ones_more_slowly(data, encoders, tmp_path):
    model, _, _ = model_of(encoders["dinov2"], data, tmp_path, mode="last-blocks", blocks=1)
    tuned = model.tuned_weights()
    assert all(".layer.1." in name or "layernorm" in name or name.startswith("layer.") for name in tuned)
    assert "encoder.model.encoder.layer.1.mlp.fc1.weight" in tuned and "layer.weight" in tuned
    model, _, _ = model_of(encoders["dinov2"], data, tmp_path, mode="full")
    scales = {round(group["scale"], 4) for group in model.parameter_groups(recipe(layer_decay=0.5))}
    assert scales == {0.125, 0.25, 0.5, 1.0}  # embeddings, two blocks, above them
    assert "encoder.model.embeddings.mask_token" not in model.tuned_weights()


def test_forwards_that_make_one_step_together_do_what_one_forward_does(data, encoders, tmp_path):
    """The views differ with the share of a batch, so that there are none here."""
    asked = {"mode": "full", "epochs": 1, "smallest_crop": 1.0, "learning_rate": 1e-4}
    POLICIES["nothing"] = ViewPolicy(False, False, 0, 0, 0, 0, 0, 0, 0, 0)
    try:
        for parts in (1, 3):
            tune(data, encoders["vit"], tmp_path / str(parts), views="nothing", accumulate=parts, **asked)
    finally:
        del POLICIES["nothing"]
    one, three = (read_tuning(tmp_path / str(parts))["history"][1] for parts in (1, 3))
    assert one["val_loss"] == pytest.approx(three["val_loss"], rel=0.02)


def test_uneven_classes_are_weighed():
    labels = np.repeat([0, 1, 2], [60, 20, 20])
    assert balanced_weights(labels, 3).tolist() == pytest.approx([100 / 180, 100 / 60, 100 / 60])
    assert balanced_weights(np.repeat([0, 1], [10, 11]), 2).tolist() == [1, 1]


def test_images_that_were_tuned_on_are_not_measured_on(data, encoders, tmp_path):
    tuned = tune(data, encoders["vit"], tmp_path / "mine", epochs=1)
    backbone = Backbone.from_pretrained(tuned.folder)
    check_unseen(backbone, split_as_built(load_data(data), 0, False))
    swapped = tmp_path / "swapped"
    shutil.copytree(data, swapped)
    table = swapped / "metadata.csv"
    table.write_text(table.read_text().replace(",test,", ",x,").replace(",val,", ",test,").replace(",x,", ",val,"))
    with pytest.raises(DataError, match="18 of the 18 test images .* fine-tuned on"):
        build_bundle(swapped, "shapes", backbone, labels=LABELS, progress=False, **UNCHOSEN)
    again = tune(swapped, tuned.folder, tmp_path / "again", epochs=1)
    assert again.facts["started_from"]["seen"] == tuned.facts["seen"]


def test_the_splits_are_those_of_a_build(tmp_path, encoders):
    folder = make_folder(tmp_path / "shapes", LABELS, seed=5, count=90)
    table = folder / "metadata.csv"
    for split in ("train", "val", "test"):
        table.write_text(table.read_text().replace(f",{split},", ",,"))
    # An equal picture of another group: in one side with the first.
    first, second = (folder / f"dots-{number:03d}.png" for number in (0, 30))
    shutil.copy(first, second)
    tuned = tune(folder, encoders["vit"], tmp_path / "mine", epochs=1)
    bundle = build_bundle(folder, "shapes", tuned.folder, labels=LABELS, progress=False, **UNCHOSEN)
    assert bundle.cases["split"].count("test") == 90 - sum(tuned.facts["images"].values())


def test_files_that_cannot_be_read_are_left_out_and_named(data, encoders, tmp_path):
    folder = tmp_path / "shapes"
    shutil.copytree(data, folder)
    with (folder / "metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for row in (rows[0], rows[-1]):
        (folder / row["file_name"]).write_bytes(b"no picture")
    tuned = tune(folder, encoders["vit"], tmp_path / "mine", epochs=1)
    broken = [row["file_name"] for row in (rows[0], rows[-1]) if row["split"] != "test"]
    assert broken and tuned.skipped == broken and tuned.facts["skipped"] == len(broken)


def test_others_are_looked_at_for_familiarity(data, encoders, tmp_path):
    other = make_folder(tmp_path / "tints", ("amber", "jade", "violet"), seed=1, count=30)
    tuned = finetune(
        *(data, "shapes", encoders["vit"], tmp_path / "mine", recipe(epochs=1)), others={"tints": other}, reports=QUIET
    )
    assert tuned.verdict["unfamiliar"]["tuned"]["tints"]["n"] == 30
    assert "Images of tints flagged as unfamiliar" in (tmp_path / "mine" / "README.md").read_text()


def test_the_same_encoder_is_not_better_than_itself(data, encoders, tmp_path):
    _, embedder, images = model_of(encoders["vit"], data, tmp_path)
    sides = embed_sides(images, embedder)
    verdict = compare_encoders(sides, sides, 3, 0)
    assert not verdict["better"] and verdict["tuned_minus_frozen"]["value"] == 0
    assert verdict["own_group_nearest"]["tuned"] == verdict["own_group_nearest"]["frozen"]


def test_what_cannot_be(data, encoders, tmp_path):
    for changes, text in (
        ({"mode": "most"}, "lora, last-blocks, full"),
        ({"epochs": 0}, "1 epoch or more"),
        ({"layer_decay": 1.5}, "at most 1"),
        ({"views": "nowhere"}, "Allowed: default"),
        ({"rank": 0}, "above 0"),
        ({"average": -1.0}, "0 epochs or more"),
        ({"untouched": 1.5}, "a share from 0 to 1"),
    ):
        with pytest.raises(PretrainError, match=text):
            recipe(**changes)
    with pytest.raises(PretrainError, match="do not fill one batch of 500"):
        tune(data, encoders["vit"], tmp_path / "a", batch_size=500)
    with pytest.raises(PretrainError, match="cannot be shared evenly"):
        tune(data, encoders["vit"], tmp_path / "a", accumulate=5)
    with pytest.raises(PretrainError, match="last-blocks or full"):
        tune(data, encoders["resnet"], tmp_path / "b")
    with pytest.raises(PretrainError, match="has 2. Give as many or fewer"):
        tune(data, encoders["vit"], tmp_path / "c", mode="last-blocks", blocks=3)
    with pytest.raises(PretrainError, match="family 'swin' cannot be fine-tuned"):
        tune(data, encoders["swin"], tmp_path / "d", mode="full")
    tune(data, encoders["vit"], tmp_path / "e", epochs=1)
    with pytest.raises(PretrainError, match="run of another recipe: its rank is 4, asked for is 2"):
        tune(data, encoders["vit"], tmp_path / "e", epochs=1, rank=2)


def test_every_mode_has_a_rate():
    assert {FineTuneRecipe(mode=mode).to_dict()["learning_rate"] for mode in PEAKS} == set(PEAKS.values())


def test_frames_that_another_run_began_to_write_over_are_written_anew(data, tmp_path, monkeypatch):
    dataset = split_as_built(load_data(data), 0, False)
    small, large = Preprocess(size=(16, 16)), Preprocess(size=(32, 32))
    before = open_images(dataset, large, tmp_path, False)
    frames = np.array(before.pixels)
    monkeypatch.setattr(
        "medssl.pretrain.finetune_images.write_frames", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        open_images(dataset, small, tmp_path, False)
    monkeypatch.undo()
    after = open_images(dataset, large, tmp_path, False)
    assert after.fingerprint == before.fingerprint and np.array_equal(after.pixels, frames)


def test_files_that_can_be_read_later_take_part_then(data, tmp_path, monkeypatch):
    dataset, preprocess = split_as_built(load_data(data), 0, False), Preprocess(size=(16, 16))
    whole = read_record

    def without_codec(record):
        if record["file_name"] == dataset[0]["file_name"]:
            raise ImageError("No codec.")
        return whole(record)

    monkeypatch.setattr("medssl.pretrain.finetune_images.read_record", without_codec)
    first = open_images(dataset, preprocess, tmp_path, False)
    again = open_images(dataset, preprocess, tmp_path, False)
    monkeypatch.undo()
    then = open_images(dataset, preprocess, tmp_path, False)
    assert first.skipped == again.skipped == [dataset[0]["file_name"]] and not then.skipped
    assert first.fingerprint == again.fingerprint != then.fingerprint


def test_other_tasks_that_cannot_be_read_are_said_before_the_training(data, encoders, tmp_path, monkeypatch):
    monkeypatch.setattr("medssl.pretrain.finetune.finetune_split", lambda *_: pytest.fail("the training began"))
    with pytest.raises(DataError, match="does not exist"):
        finetune(data, "shapes", encoders["vit"], tmp_path / "mine", others={"x": tmp_path / "nowhere"})
