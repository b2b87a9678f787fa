import numpy as np
import pytest

from medssl.backbones.reading import Reading, union
from medssl.data.labelled import Labelled
from medssl.heads.reading_choice import (
    PENALTIES,
    choose_reading,
    describe_reading_choice,
    held_out_hits,
    ridge_logits,
    with_columns,
)

WIDTH = 6
READINGS = {text: Reading.parse(text) for text in ("cls", "cls1", "cls+mean", "cls1+cls+mean")}


def images(count: int, strengths: dict[str, float], seed: int, uneven: bool = False) -> Labelled:
    """Embeddings of the readings' union; of each part the class moves the first number by so much."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, count, p=[0.6, 0.3, 0.1] if uneven else None)
    wider = union(READINGS.values())
    values = rng.normal(size=(count, WIDTH * len(wider.parts)))
    for part, strength in strengths.items():
        start = Reading.parse(part).columns(wider, WIDTH)[0]
        values[np.arange(count), start + labels] += strength
    groups = np.array([f"g{number // 2}" for number in range(count)])
    return Labelled(values.astype(np.float32), labels, groups)


@pytest.mark.parametrize(("count", "width", "uneven"), [(40, 90, False), (200, 24, False), (150, 24, True)])
def test_the_ridge_probe_is_the_plain_weighted_least_squares(count, width, uneven):
    rng = np.random.default_rng(1)
    labels = rng.choice(3, count, p=[0.6, 0.3, 0.1] if uneven else None)
    train = Labelled(rng.normal(2, 3, (count, width)).astype(np.float32), labels, labels.astype(str))
    queries = train.rows(slice(0, 7))
    mean, std = train.embeddings.astype(float).mean(0), train.embeddings.astype(float).std(0)
    values, new = ((part.embeddings - mean) / std for part in (train, queries))
    counts = np.bincount(labels, minlength=3)
    balanced = counts.max() > 1.5 * counts.min()
    weights = np.diag(count / (3 * counts[labels]) if balanced else np.ones(count))
    ones = np.ones((count, 1))
    wide = np.hstack([values, ones])  # the last column is the bias, which is not penalised
    for penalty, found in zip(PENALTIES, ridge_logits(train, queries, 3), strict=True):
        damping = penalty * count * np.diag([1.0] * width + [0.0])
        solved = np.linalg.solve(wide.T @ weights @ wide + damping, wide.T @ weights @ np.eye(3)[labels])
        np.testing.assert_allclose(found, np.hstack([new, ones[:7]]) @ solved, atol=1e-6)


def test_the_reading_that_says_more_is_chosen_and_the_record_says_what_was_tried():
    train, validation = images(300, {"cls1": 3.0}, 0), images(200, {"cls1": 3.0}, 1)
    reading, record = choose_reading(train, validation, READINGS, WIDTH, 3)
    assert reading == READINGS["cls1"] and record["chosen"] == record["pooling"] == "cls1"
    assert list(record["tried"]) == list(READINGS)
    assert record["tried"]["cls"]["best_minus_this"]["low"] > 0
    assert (
        record["tried"]["cls1"]["balanced_accuracy"]["value"]
        > 0.8
        > record["tried"]["cls"]["balanced_accuracy"]["value"]
    )
    text = describe_reading_choice(record)
    assert "cls1" in text and "200 validation images of 100 groups" in text and "ridge probe" in text
    assert (reading, record) == choose_reading(train, validation, READINGS, WIDTH, 3)


def test_the_plainest_is_taken_where_they_cannot_be_told_apart():
    strengths = {"cls": 3.0}
    reading, record = choose_reading(images(300, strengths, 0), images(60, strengths, 1), READINGS, WIDTH, 3)
    assert reading == READINGS["cls"]
    assert record["tried"]["cls"]["best_minus_this"]["low"] <= 0


def test_the_penalty_is_chosen_on_other_groups():
    train, validation = images(300, {"cls": 1.0}, 0), images(120, {"cls": 1.0}, 1)
    columns = READINGS["cls"].columns(union(READINGS.values()), WIDTH)
    train, validation = with_columns(train, columns), with_columns(validation, columns)
    hits = held_out_hits(train, validation, 3, 0)
    every = [logits.argmax(1) == validation.labels for logits in ridge_logits(train, validation, 3)]
    assert all(any(hits[row] == found[row] for found in every) for row in range(len(hits)))
    assert hits.mean() > 0.4


def test_one_that_was_asked_for_and_one_without_choice_are_said():
    assert (
        describe_reading_choice({"asked": "mean", "chosen": "mean", "pooling": "mean"})
        == "Reading: mean, as asked for."
    )
    assert "the only one" in describe_reading_choice(
        {"asked": "auto", "chosen": "mean", "pooling": "mean", "tried": {"mean": {}}}
    )
