"""Checks that stand alone: label names, label errors, notes; and the registry that lists them."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from medssl.audit.audit import audit_data
from medssl.audit.group_sizes import GROUP_SIZES
from medssl.audit.label_errors import LABEL_ERRORS, suspects
from medssl.audit.label_names import plain_label
from medssl.audit.registry import CHECKS
from medssl.audit.subject import Subject
from medssl.backbones.embeddings import with_embeddings
from medssl.data.load import load_data
from tests.folders import Folder, blobs


def embedded(vectors, labels, groups):
    """A data set of embeddings only, as the checks on vectors see it."""
    features = Features(
        {
            "label": ClassLabel(names=["a", "b", "c"]),
            **dict.fromkeys(("file_name", "group_id", "split"), Value("string")),
        }
    )
    columns = {
        "label": labels.tolist(),
        "file_name": [f"{row}.png" for row in range(len(labels))],
        "group_id": [str(group) for group in groups],
        "split": ["train"] * len(labels),
    }
    return with_embeddings(Dataset.from_dict(columns, features=features), vectors)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_flipped_labels_are_found_and_few_others(seed):
    random = np.random.default_rng(seed)
    labels = np.arange(300) % 3
    vectors = random.normal(0, 1, (300, 16)) + 4 * np.eye(16)[labels]
    flipped = random.choice(300, 15, replace=False)
    given = labels.copy()
    given[flipped] = (labels[flipped] + 1 + random.integers(0, 2, 15)) % 3
    (found,) = LABEL_ERRORS.run(Subject(embedded(vectors.astype(np.float32), given, np.arange(300) // 2))).findings
    named = {pair.rows[0] for pair in found.pairs}
    assert len(named & set(flipped.tolist())) >= 10
    assert len(named - set(flipped.tolist())) <= 4
    assert "probably" in found.examples[0]
    assert all(given[pair.rows[0]] != given[pair.rows[1]] for pair in found.pairs)


def test_right_labels_give_few_suspects():
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    vectors = random.normal(0, 1, (300, 16)) + 6 * np.eye(16)[labels]
    assert LABEL_ERRORS.run(Subject(embedded(vectors.astype(np.float32), labels, np.arange(300)))).findings == []


def test_the_confident_joint_by_hand():
    """Two classes; thresholds 0.7 and 0.8: row 2 is labeled 0, and reaches class 1's threshold only."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.2, 0.8], [0.2, 0.8]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert suspects(probabilities, labels) == [(2, 1)]


def test_rows_below_every_threshold_say_nothing_of_how_many_are_wrong():
    """Thresholds 0.4375 and 0.8; rows 2 and 3 reach none. Of the two that do, half are of class 1: so two of four."""
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6], [0.35, 0.65], [0.2, 0.8], [0.2, 0.8]])
    assert suspects(probabilities, np.array([0, 0, 0, 0, 1, 1])) == [(1, 1), (3, 1)]


def test_too_few_groups_give_no_verdict():
    vectors = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    assert LABEL_ERRORS.run(Subject(embedded(vectors, np.arange(12) % 3, np.arange(12) // 4))).findings == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Glioma", "glioma ", True), ("no tumor", "no_tumor", True), ("1", "1.0", True), ("01", "1", True),
        ("café", "cafe\u0301", True), ("Ａ", "a", True), ("1", "10", False), ("grade 1", "grade 2", False),
        ("1.5", "15", False), ("+", "-", False),
    ],
)  # fmt: skip
def test_labels_written_alike(one, other, same):
    assert (plain_label(one) == plain_label(other)) == same


def test_labels_written_alike_and_notes_are_findings(tmp_path):
    folder = Folder(tmp_path / "data")
    for index in range(24):
        folder.add(f"{index}.png", ("Cyst", "cyst", "stone")[index % 3], image=blobs(index))
    folder.write()
    path = folder.root
    table = (path / "metadata.csv").read_text().splitlines()
    table = [line + (",age" if row == 0 else ",50") for row, line in enumerate(table)]
    (path / "metadata.csv").write_text("\n".join(table) + "\n")
    audit = audit_data(load_data(path), progress=False)
    alike = next(item for item in audit.findings if item.kind == "labels written alike")
    assert alike.severity == "error" and "'Cyst' (8 images), 'cyst' (8 images)" in alike.examples[0]
    assert any("not used: the column 'age'" in item.message for item in audit.findings)


@pytest.mark.parametrize(("placeholder", "rows", "told"), [("-99", 30, True), ("-99", 3, False)])
def test_a_group_that_is_a_word_for_not_known(placeholder, rows, told):
    groups = [placeholder] * rows + [f"p{index}" for index in range(60 - rows)]
    labels = np.arange(60) % 3
    found = GROUP_SIZES.run(Subject(embedded(np.ones((60, 4), np.float32), labels, groups))).findings
    assert [item.severity for item in found] == (["warning"] if told else [])
    assert not told or "'-99' holds 30 of 60 images" in found[0].message


def test_no_control_character_reaches_the_terminal(tmp_path):
    for label in ("a", "b\x1b[31m\nx"):
        (tmp_path / label).mkdir()
        for index in range(6):
            blobs(0).save(tmp_path / label / f"{index}\n\x1b]0;title\x07\u202e.png")
    audit = audit_data(load_data(tmp_path), progress=False)
    assert audit.errors, "equal pictures of two labels"
    text = audit.table()
    assert all(line.isprintable() for line in text.split("\n"))
    assert "0\\n\\x1b]0;title\\x07\\u202e.png" in text
    assert len(text.split("\n")) == len(audit_data(load_data(tmp_path), progress=False).table().splitlines())


def test_the_registry_names_every_check_once():
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names)) and all(check.needs in ("table", "images", "vectors") for check in CHECKS)
