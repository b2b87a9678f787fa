"""Distillation: the answers are the teacher's own, views fit them, and the loss is what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from transformers import Dinov2Config, ResNetConfig

from medssl import Backbone, read_image
from medssl.errors import PretrainError
from medssl.images.preprocess import IMAGENET_MEAN, IMAGENET_STD
from medssl.pretrain.answers import FixedCrops, open_answers, teacher_side
from medssl.pretrain.corpus import open_corpus
from medssl.pretrain.distill import Distill
from medssl.pretrain.encoder import ARCHITECTURES, Encoder
from medssl.pretrain.export import Export, save_encoder
from medssl.pretrain.objective import ViewBatch
from medssl.pretrain.recipe import Recipe
from medssl.pretrain.runner import pretrain
from medssl.pretrain.teacher import Teacher, regrid
from tests.pretrain.test_runner import QUIET

SMALL = Dinov2Config(
    hidden_size=64, num_hidden_layers=3, num_attention_heads=2, patch_size=6, image_size=36, mlp_ratio=2
)
RESNET = ResNetConfig(embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], layer_type="basic")


@pytest.fixture(autouse=True)
def small_architectures(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "small", SMALL)
    monkeypatch.setitem(ARCHITECTURES, "small-resnet", RESNET)


@pytest.fixture
def corpus(few_patterns, tmp_path):
    return open_corpus({"patterns": few_patterns}, tmp_path / "corpus", 48, progress=False)


def recipe(**changes):
    settings = {"method": "distill", "teacher": "medssl-tiny", "architecture": "small"}
    sizes = {"epochs": 2, "batch_size": 16, "size": 36, "stored_size": 48}
    return Recipe(**{**settings, **sizes, **changes})


def plain_answer(teacher, pixels, grid):
    """The same by transformers' own hidden states, one block and one place of the grid after the other."""
    model, prefix = teacher.backbone.model, teacher.backbone.prefix
    states = model(pixel_values=pixels, output_hidden_states=True).hidden_states  # 0 is before the first block
    rows, columns = (side // teacher.backbone.stride for side in pixels.shape[-2:])
    answers = [model.layernorm(states[block])[:, 0] for block in teacher.cls_blocks]
    for block in teacher.patch_blocks:
        patches = model.layernorm(states[block])[:, prefix:].unflatten(1, (rows, columns))
        for row in range(grid[0]):
            for column in range(grid[1]):
                top, left = row * rows // grid[0], column * columns // grid[1]
                bottom, right = -(-(row + 1) * rows // grid[0]), -(-(column + 1) * columns // grid[1])
                answers.append(patches[:, top:bottom, left:right].mean((1, 2)))
    return torch.stack(answers, 1)


@pytest.mark.parametrize("grid", [(4, 4), (3, 3), (2, 5)])
def test_answers_are_the_teachers_tokens(grid):
    teacher = Teacher.load("medssl-tiny", "6,8", "2,6")
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = plain_answer(teacher, pixels, grid)
    assert teacher.grid(56) == (4, 4)
    found = regrid(teacher.answer(pixels), 2, (4, 4), grid)
    assert found.shape == (2, 2 + 2 * grid[0] * grid[1], 192)
    assert torch.allclose(found, wanted, atol=2e-4)


def test_blocks_of_the_teacher_are_chosen_or_refused():
    assert Teacher.load("medssl-tiny").cls_blocks == (6, 8) and Teacher.load("medssl-tiny").patch_blocks == (6,)
    for text in ("0", "9", "a", "3,"):
        with pytest.raises(PretrainError, match="from 1 to 8"):
            Teacher.load("medssl-tiny", text)


def test_the_first_crop_is_the_whole_picture_and_all_stay_the_same(corpus):
    crops = FixedCrops(corpus, 3, 0.4, seed=0)
    rows = np.arange(len(corpus))
    whole = crops.pixels(rows, 48)
    original = torch.from_numpy(np.array(corpus.images)).float() / 255
    mirrored = [original, original.flip(3)]  # what the default views allow
    worst = torch.stack([(whole - picture).abs().amax((1, 2, 3)) for picture in mirrored]).amin(0)
    assert float(worst.max()) < 1e-3
    random = np.array([len(corpus) + 3, 2 * len(corpus) + 1, 5])
    assert torch.equal(crops.pixels(random, 36), crops.pixels(random[::-1].copy(), 36).flip(0))
    other = FixedCrops(corpus, 3, 0.4, seed=1)
    assert not torch.equal(crops.pixels(random, 36), other.pixels(random, 36))


def test_views_without_jitter_are_the_crops_that_the_teacher_saw(corpus, tmp_path):
    asked = recipe(options={"jitter": 0.0, "crops": 3})
    teacher = Teacher.load("medssl-tiny")
    answers = open_answers(tmp_path, corpus, asked, teacher, (6, 6), progress=False)
    objective = Distill(Encoder.create("small", 0), asked.options)
    indices = np.array([1, 5, 30])
    views = answers.views(indices, objective, asked, step=4)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    side, matched = teacher_side(asked, teacher), 0
    for position, index in enumerate(indices):
        for crop in range(3):
            row = np.array([crop * len(corpus) + index])
            seen = (answers.crops.pixels(row, 36) - mean) / deviation
            if torch.allclose(seen[0], views.large[position], atol=1e-5):
                matched += 1
                pixels = (answers.crops.pixels(row, side) - mean) / deviation
                wanted = regrid(teacher.answer(pixels), 2, teacher.grid(side), (6, 6))
                assert torch.allclose(wanted[0], views.answers[position].float(), atol=0.02)
    assert matched == 3
    jittered = answers.views(indices, Distill(Encoder.create("small", 0), {"jitter": 1.0}), asked, step=4)
    assert not torch.allclose(jittered.large, views.large) and torch.equal(jittered.answers, views.answers)


def test_statistics_are_those_of_all_answers(corpus, tmp_path):
    answers = open_answers(tmp_path, corpus, recipe(), Teacher.load("medssl-tiny"), (6, 6), progress=False)
    mean, deviation = answers.statistics()
    tokens = np.asarray(answers.tokens, np.float64)
    kinds = [tokens[:, 0], tokens[:, 1], tokens[:, 2:].reshape(-1, tokens.shape[-1])]
    assert np.allclose(mean, [kind.mean(0) for kind in kinds], atol=1e-4)
    assert np.allclose(deviation, [kind.std(0) for kind in kinds], atol=1e-3)


def test_answers_go_on_after_a_stop_and_damage_is_refused(corpus, tmp_path, monkeypatch):
    asked, teacher = recipe(), Teacher.load("medssl-tiny")
    whole = np.array(open_answers(tmp_path / "whole", corpus, asked, teacher, (6, 6), progress=False).tokens)
    answer, calls = Teacher.answer, []

    def stops(self, pixels):
        calls.append(len(pixels))
        if sum(calls) > 70:
            raise KeyboardInterrupt
        return answer(self, pixels)

    monkeypatch.setattr(Teacher, "answer", stops)
    with pytest.raises(KeyboardInterrupt):
        open_answers(tmp_path / "stopped", corpus, asked, teacher, (6, 6), progress=False)
    monkeypatch.setattr(Teacher, "answer", answer)
    again = open_answers(tmp_path / "stopped", corpus, asked, teacher, (6, 6), progress=False)
    assert np.array_equal(again.tokens, whole)
    file = next((tmp_path / "stopped").glob("*.npy"))
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(PretrainError, match="damaged"):
        open_answers(tmp_path / "stopped", corpus, asked, teacher, (6, 6), progress=False)
    other = open_answers(tmp_path / "whole", corpus, replace(asked, seed=1), teacher, (6, 6), progress=False)
    assert not np.array_equal(other.tokens, whole)


def test_one_file_of_answers_serves_students_of_every_grid(corpus, tmp_path):
    teacher = Teacher.load("medssl-tiny")
    own, coarse = (open_answers(tmp_path, corpus, recipe(), teacher, grid, progress=False) for grid in ((3, 3), (1, 1)))
    assert len(list(tmp_path.glob("answers-*.npy"))) == 1 and own.grid == (3, 3)
    objective = Distill(Encoder.create("small", 0), {})
    first, second = (each.views(np.arange(4), objective, recipe(), step=0).answers.float() for each in (own, coarse))
    assert torch.allclose(first[:, 2:].mean(1), second[:, 2], atol=1e-3) and torch.equal(first[:, :2], second[:, :2])


def cosine(first, second):
    return float((first * second).sum() / (first.norm() * second.norm()))


@pytest.mark.parametrize("architecture", ["small", "small-resnet"])
def test_the_loss_is_one_minus_the_mean_cosine_to_standardized_answers(architecture):
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder.create(architecture, 0)
    objective = Distill(encoder, {"patch_weight": 0.5}).eval()
    places = encoder.grid(36)[0] * encoder.grid(36)[1]
    mean, deviation = torch.randn(4, 10, generator=generator), torch.rand(4, 10, generator=generator) + 0.5
    objective.expect(2, 2, mean, deviation)
    pixels = torch.randn(3, 3, 36, 36, generator=generator)
    answers = torch.randn(3, 2 + 2 * places, 10, generator=generator)
    found = objective(ViewBatch(pixels, pixels[:0], torch.zeros(0, 0).bool(), answers), 0.5)
    pooled, patches = encoder(pixels)
    cls, grids = [], []
    for image in range(3):
        given = objective.cls_head(pooled[image]).view(2, 10)
        for kind in range(2):
            cls.append(cosine(given[kind], (answers[image, kind] - mean[kind]) / deviation[kind]))
            for place in range(places):
                there = objective.patch_head(patches[image, place]).view(2, 10)[kind]
                wanted = (answers[image, 2 + kind * places + place] - mean[2 + kind]) / deviation[2 + kind]
                grids.append(cosine(there, wanted))
    assert float(found["loss"]) == pytest.approx((1 - np.mean(cls)) + 0.5 * (1 - np.mean(grids)), abs=1e-5)


def told(student, teacher, files):
    """How much of the teacher's vector (R²) a linear map tells from the student's, on half of the pictures."""
    pictures = [read_image(file) for file in files]
    given, wanted = (
        np.concatenate([backbone.encode(pictures[start : start + 32], side).cls for start in range(0, len(files), 32)])
        for backbone, side in ((student, student.preprocess), (teacher, replace(teacher.preprocess, size=(42, 42))))
    )
    half = np.arange(len(files)) % 2 == 0
    return Ridge(1.0).fit(given[half], wanted[half]).score(given[~half], wanted[~half])


def test_a_short_run_tells_more_of_the_teacher_than_its_random_start(patterns, more_patterns, tmp_path):
    asked = recipe(epochs=10, batch_size=32, learning_rate=2e-3, options={"crops": 2})
    save_encoder(Encoder.create("small", asked.seed), tmp_path / "start", asked, {}, Export())
    pretrain(asked, {"patterns": patterns}, tmp_path / "end", reports=QUIET)
    files = sorted(more_patterns.rglob("*.png"))[::2]
    teacher = Backbone.from_pretrained("medssl-tiny")
    before, after = (told(Backbone.from_pretrained(tmp_path / name), teacher, files) for name in ("start", "end"))
    assert after > before + 0.05, f"{before:.3f} before, {after:.3f} after"
