"""Runs from the outside: they learn, resume exactly after a kill, use several processes, and refuse what cannot be."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, ResNetConfig, ViTConfig

from medssl import Backbone
from medssl.errors import BackboneError, DataError, PretrainError
from medssl.pretrain.batches import Batches
from medssl.pretrain.chronicle import Reports
from medssl.pretrain.corpus import open_corpus
from medssl.pretrain.encoder import ARCHITECTURES, Encoder
from medssl.pretrain.export import Export
from medssl.pretrain.recipe import METHODS, Recipe
from medssl.pretrain.runner import pretrain
from medssl.pretrain.views import POLICIES, ViewPolicy
from medssl.pretrain.watch import Watch
from tests import warm
from tests.conftest import ROOT

SMALL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
QUIET = Reports(log_every=20, checkpoint_every=50, progress=False)
SCRIPT = ROOT / "scripts" / "pretrain.py"


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are slower on two threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def small_architectures(monkeypatch):
    made = {
        "small": Dinov2Config(patch_size=6, image_size=36, mlp_ratio=2, **SMALL),
        "small-vit": ViTConfig(patch_size=6, image_size=36, intermediate_size=128, **SMALL),
        "small-resnet": ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], layer_type="basic"
        ),
    }
    for name, config in made.items():
        monkeypatch.setitem(ARCHITECTURES, name, config)


def recipe(**changes):
    settings = {"architecture": "small", "epochs": 2, "batch_size": 16, "size": 36, "small_size": 18, "stored_size": 48}
    teacher = {"teacher": "medssl-tiny"} if changes.get("method") == "distill" else {}
    return Recipe(**{**settings, **teacher, **changes})


def mean_accuracy(encoder, data):
    return Watch({"patterns": data}, 36, seed=0).scores(encoder)["knn_patterns"]


# Colours and angles are all that must not matter; what stays is the pattern.
FREE = ViewPolicy(
    vertical_flip=True, rotation=180, brightness=0.6, contrast=0.6, saturation=0.8, hue=3.14, gray=0.5, blur=0.2
)


def test_a_short_run_raises_knn_accuracy_over_its_random_start(patterns, more_patterns, tmp_path, monkeypatch):
    monkeypatch.setitem(POLICIES, "free", FREE)
    options = {"hidden": 128}
    asked = recipe(method="simclr", epochs=40, batch_size=60, views="free", learning_rate=2e-3, options=options)
    before = mean_accuracy(Encoder.create("small", asked.seed), more_patterns)
    pretrain(asked, {"patterns": patterns}, tmp_path, reports=QUIET)
    after = mean_accuracy(Encoder.load(tmp_path), more_patterns)
    assert after >= before + 0.05, f"{before:.3f} before, {after:.3f} after"


@pytest.mark.parametrize(
    ("method", "options"),
    [("dino", {"prototypes": 128, "head_hidden": 128, "bottleneck": 32}), ("byol", {"hidden": 128})],
)
def test_a_short_run_brings_the_loss_down(method, options, patterns, tmp_path):
    asked = recipe(method=method, epochs=10, batch_size=60, learning_rate=1e-3, options=options)
    pretrain(asked, {"patterns": patterns}, tmp_path, reports=Reports(1, 100, progress=False))
    with (tmp_path / "run" / "log.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_recipe_gives_the_same_weights_and_a_loadable_backbone(method, few_patterns, tmp_path):
    for place in ("first", "second"):
        pretrain(recipe(method=method), {"patterns": few_patterns}, tmp_path / place, reports=QUIET)
    first, second = ((tmp_path / place / "model.safetensors").read_bytes() for place in ("first", "second"))
    assert first == second
    backbone = Backbone.from_pretrained(tmp_path / "first")
    assert backbone.preprocess.size == (36, 36) and backbone.dimension == 64
    facts = json.loads((tmp_path / "first" / "pretraining.json").read_text())
    assert facts["method"] == method and facts["seed"] == 0 and facts["images"] == {"patterns": 32}
    started = Encoder.create("small", 0).model.state_dict()
    moved = [name for name, value in backbone.model.state_dict().items() if not torch.equal(value, started[name])]
    assert len(moved) > len(started) / 2
    other = pretrain(recipe(method=method, seed=1), {"patterns": few_patterns}, tmp_path / "third", reports=QUIET)
    assert (other / "model.safetensors").read_bytes() != first


@pytest.mark.parametrize("architecture", ["small-vit", "small-resnet"])
@pytest.mark.parametrize("method", ["simclr", "byol", "distill"])
def test_vit_and_resnet_encoders(architecture, method, few_patterns, tmp_path):
    asked = recipe(method=method, architecture=architecture, epochs=1)
    pretrain(asked, {"patterns": few_patterns}, tmp_path, reports=QUIET)
    assert Backbone.from_pretrained(tmp_path).has_cls is (architecture == "small-vit")


def test_init_goes_on_from_a_checkpoint(few_patterns, tmp_path):
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(patch_size=14, image_size=42, mlp_ratio=2, **SMALL)).save_pretrained(tmp_path / "given")
    asked = recipe(architecture=None, init=str(tmp_path / "given"), size=42, small_size=28, learning_rate=1e-6)
    pretrain(asked, {"patterns": few_patterns}, tmp_path / "out", reports=QUIET)
    given, found = (Backbone.from_pretrained(tmp_path / name).model.state_dict() for name in ("given", "out"))
    worst = max(float((given[name] - found[name]).abs().max()) for name in given)
    assert 0 < worst < 1e-3


def command(data, out, *extra):
    options = ["--batch-size", "8", "--size", "28", "--small-size", "14", "--stored-size", "32", "--epochs", "6"]
    return [str(SCRIPT), "--data", str(data), "--out", str(out), "--quiet", *options, *extra]


def teacher_of(method):
    return ["--teacher", "medssl-tiny"] if method == "distill" else []


@pytest.mark.parametrize("method", ["dino", "distill"])
def test_killed_in_the_middle_and_started_again_it_ends_with_the_same_weights(method, few_patterns, tmp_path):
    often = ["--checkpoint-every", "3", "--log-every", "2", "--method", method, *teacher_of(method)]
    warm.run(command(few_patterns, tmp_path / "whole", *often)).check_returncode()
    killed = command(few_patterns, tmp_path / "killed", *often)
    running = warm.start(killed)
    log = tmp_path / "killed" / "run" / "log.csv"
    checkpoint = tmp_path / "killed" / "run" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not (checkpoint.exists() and log.exists() and log.read_text().count("\n") > 3):
        assert running.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 24
    warm.run(killed).check_returncode()
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]
    steps = [line.split(",")[0] for line in log.read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(2, 25, 2)]


def test_asked_to_stop_it_saves_says_so_and_goes_on(few_patterns, tmp_path):
    asked = command(few_patterns, tmp_path / "out", "--log-every", "1")
    running = warm.start(asked, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "run" / "log.csv").exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 130 and "goes on from here" in running.stdout.read()
    assert (tmp_path / "out" / "run" / "checkpoint.pt").exists()


ALL_COMMANDS = """
import json, sys
from medssl.cli.pretrain import main
for command in json.loads(sys.argv[1]):
    assert main(command) == 0
"""


def test_two_processes_share_a_batch_and_end_with_one_encoder(few_patterns, tmp_path):
    (tmp_path / "all.py").write_text(ALL_COMMANDS)
    commands = [
        command(few_patterns, tmp_path / method, "--method", method, *teacher_of(method))[1:] for method in METHODS
    ]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(tmp_path / "all.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    asked = [sys.executable, *launch, json.dumps(commands)]
    done = subprocess.run(asked, env=environment, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for method in METHODS:
        facts = json.loads((tmp_path / method / "pretraining.json").read_text())
        assert facts["processes"] == 2 and facts["steps"] == 24
        assert np.isfinite(Backbone.from_pretrained(tmp_path / method).embed(torch.zeros(1, 3, 28, 28), "cls")).all()


def test_batches_cover_an_epoch_once_and_share_without_overlap():
    batches = Batches(50, 8, seed=3)
    seen = np.concatenate([batches.indices(step, 0, 1) for step in range(batches.per_epoch)])
    assert len(seen) == len(set(seen)) == 48
    halves = [batches.indices(2, rank, 2) for rank in (0, 1)]
    assert np.array_equal(np.sort(np.concatenate(halves)), batches.indices(2, 0, 1))
    assert not np.array_equal(batches.indices(0, 0, 1), batches.indices(6, 0, 1))


def test_batches_of_one_task_never_mix_and_cover_every_kind():
    kinds = np.repeat([0, 1, 2], [20, 25, 5])
    batches = Batches(50, 8, seed=3, kinds=kinds)
    epoch = [batches.indices(step, 0, 1) for step in range(batches.per_epoch)]
    assert batches.per_epoch == 20 // 8 + 25 // 8  # 5 images fill no batch
    assert all(len(set(kinds[batch])) == 1 and len(batch) == 8 for batch in epoch)
    seen = np.concatenate(epoch)
    assert len(seen) == len(set(seen)) and set(kinds[seen]) == {0, 1}
    orders = {tuple(kinds[batches.indices(step, 0, 1)[0]] for step in range(e * 5, e * 5 + 5)) for e in range(8)}
    assert len(orders) > 1


def test_one_task_is_a_data_set_with_its_phantoms(few_patterns, tmp_path):
    data = {"brain": few_patterns, "eye": few_patterns, "brain-demo": few_patterns}
    corpus = open_corpus(data, tmp_path / "kept", 24, progress=False)
    count = len(corpus) // 3
    assert corpus.tasks().tolist() == [0] * count + [1] * count + [0] * count
    out = pretrain(recipe(epochs=1, batches="one-task"), data, tmp_path / "out", reports=QUIET)
    assert json.loads((out / "pretraining.json").read_text())["batches"] == "one-task"


def test_the_corpus_takes_train_images_only_and_names_what_it_skips(few_patterns, tmp_path):
    folder = tmp_path / "data"
    for split in ("train", "test"):
        (folder / split / "any").mkdir(parents=True)
        for file in sorted((few_patterns / "fine").iterdir())[:3]:
            (folder / split / "any" / file.name).write_bytes(file.read_bytes())
    (folder / "train" / "broken.png").write_bytes(b"no image")
    corpus = open_corpus({"brain-demo": folder}, tmp_path / "kept", 24, progress=False)
    assert corpus.images.shape == (3, 3, 24, 24) and corpus.skipped == ["train/broken.png"]
    assert corpus.policies == ["brain"] and len(corpus) == 3
    again = open_corpus({"brain-demo": folder}, tmp_path / "kept", 24, progress=False)
    assert np.array_equal(corpus.images, again.images)


def test_a_folder_of_another_run_is_refused(few_patterns, tmp_path):
    pretrain(recipe(epochs=1), {"patterns": few_patterns}, tmp_path, reports=QUIET)
    with pytest.raises(PretrainError, match="another recipe.*learning_rate"):
        pretrain(recipe(epochs=1, learning_rate=5e-4), {"patterns": few_patterns}, tmp_path, reports=QUIET)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "mae"}, "Allowed: dino, simclr, byol"),
        ({"batches": "by name"}, "allowed: mixed, one-task"),
        ({"init": "somewhere"}, "either an architecture"),
        ({"architecture": None}, "either an architecture"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 2}, "at least 4"),
        ({"options": {"colour": 1}}, "no option 'colour'"),
        ({"options": {"centring": "none"}}, "sinkhorn, centring"),
        ({"options": {"momentum": "high"}}, "momentum is 'high'"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"teacher": "medssl-tiny"}, "no other method has one"),
        ({"method": "distill", "teacher": None}, "distill needs a teacher"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes, said):
    with pytest.raises(PretrainError, match=said):
        recipe(**changes)


def test_an_encoder_may_ask_for_larger_images_than_its_views(few_patterns, tmp_path):
    small = Export(dtype="float16", input_size=60)
    pretrain(recipe(epochs=1), {"patterns": few_patterns}, tmp_path, reports=QUIET, export=small)
    backbone = Backbone.from_pretrained(tmp_path)
    assert backbone.preprocess.size == (60, 60) and backbone.grid == (10, 10)
    size = sum(parameter.numel() for parameter in backbone.model.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 2.2 * size + 10_000
    with pytest.raises(PretrainError, match="input_size is 61"):
        pretrain(recipe(), {"patterns": few_patterns}, tmp_path / "bad", reports=QUIET, export=Export(input_size=61))
    with pytest.raises(PretrainError, match="'int8'"):
        Export(dtype="int8")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"architecture": "small-vit"}, PretrainError, "no mask token"),
        ({"architecture": "unknown"}, PretrainError, "No architecture 'unknown'"),
        ({"size": 37, "small_size": 20}, PretrainError, "size is 37 .* 20 px.*of 6.*--size 36 --small-size 18"),
        ({"batch_size": 500}, PretrainError, "do not fill one batch"),
        ({"views": "sepia"}, DataError, "no views named 'sepia'"),
        ({"architecture": None, "init": "nowhere"}, BackboneError, "nowhere"),
        ({"method": "distill", "teacher": "nowhere"}, BackboneError, "nowhere"),
        ({"method": "distill", "options": {"cls_blocks": "13"}}, PretrainError, "from 1 to 8"),
        ({"method": "distill", "options": {"teacher_size": 50}}, PretrainError, "multiple of 14"),
        ({"method": "distill", "options": {"smallest": 0}}, PretrainError, "smallest above 0"),
    ],
)
def test_runs_that_cannot_be_are_refused(changes, error, said, few_patterns, tmp_path):
    with pytest.raises(error, match=said):
        pretrain(recipe(**changes), {"patterns": few_patterns}, tmp_path, reports=QUIET)
