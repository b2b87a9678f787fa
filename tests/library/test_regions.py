"""Regions of cases: the scan gives Qdrant's answer, boxes are exact, and what does not fit is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from medssl.data.annotations import BOXES
from medssl.data.load import load_data, read_record
from medssl.errors import BundleError, LibraryError
from medssl.images.preprocess import Preprocess
from medssl.library.regions import RegionConfig, RegionIndex, spread, unit_rows


def make_index(count=30, grid=(4, 5), width=12, fit="squash"):
    tokens = np.random.default_rng(0).normal(size=(count, grid[0] * grid[1], width)).astype(np.float16)
    preprocess = Preprocess((56, 70), fit=fit)
    return RegionIndex.fit(RegionConfig({"id": "x"}, preprocess, 1, grid, "c"), tokens), tokens


def test_the_scan_gives_the_answer_of_qdrants_multi_vectors():
    from qdrant_client import QdrantClient, models

    index, _ = make_index(300)
    client = QdrantClient(":memory:")
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    size = index.tokens.shape[-1]
    vectors = models.VectorParams(size=size, distance=models.Distance.DOT, multivector_config=several)
    client.create_collection("regions", vectors_config=vectors)
    points = [
        models.PointStruct(id=row, vector=values.astype(float).tolist()) for row, values in enumerate(index.tokens)
    ]
    client.upsert("regions", points)
    query = unit_rows(np.random.default_rng(1).normal(size=(7, size)))
    theirs = client.query_points("regions", query=query.tolist(), limit=10).points
    ours = index.search(query, 10)
    assert [row for row, _ in ours] == [point.id for point in theirs]
    assert np.allclose([7 * score for _, score in ours], [point.score for point in theirs], atol=1e-4)
    left_out = ours[0][0]
    assert [row for row, _ in index.search(query, 9, {left_out})] == [row for row, _ in ours[1:]]


def test_a_case_is_found_by_a_region_of_its_own_and_the_region_is_the_same():
    index, tokens = make_index()
    for window in ((0, 0, 2, 2), (3, 1, 5, 4), (1, 2, 4, 3)):
        left, top, right, bottom = window
        inside = np.zeros((4, 5), bool)
        inside[top:bottom, left:right] = True
        query = index.reduce(tokens[17][inside.ravel()])
        row, score = index.search(query, 1)[0]
        assert row == 17 and score == pytest.approx(1, abs=1e-2)
        assert index.match(query, 17, (bottom - top, right - left)) == window


def test_boxes_and_patches_belong_to_each_other_with_padding_too():
    index, _ = make_index()
    assert np.argwhere(index.inside((0.2, 0.25, 0.6, 0.75), (100, 80))).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert np.allclose(index.picture_box((1, 1, 3, 3), (100, 80)), (0.2, 0.25, 0.6, 0.75))
    assert index.inside((0.21, 0.26, 0.22, 0.27), (100, 80)).sum() == 1, (
        "a box without a patch's middle has the nearest"
    )
    padded, _ = make_index(fit="pad")
    size = (100, 40)  # lies in rows 14 to 42 of 56: the middle two of the four rows of patches
    assert padded.inside((0, 0, 1, 1), size).all(axis=1).tolist() == [False, True, True, False]
    assert np.allclose(padded.picture_box((0, 0, 5, 4), size), (0, 0, 1, 1))


@pytest.mark.parametrize("box", [(0.5, 0, 0.5, 1), (0, 0, 1, 1.1), (float("nan"), 0, 1, 1)])
def test_a_box_that_cannot_be_is_refused(box):
    with pytest.raises(LibraryError, match="left below right"):
        make_index()[0].inside(box, (10, 10))


def test_many_patches_are_thinned_evenly():
    query = np.arange(300)[:, None]
    assert len(spread(query)) == 64 and spread(query)[0] == 0 and spread(query)[-1] == 299
    assert spread(query[:9]) is not None and len(spread(query[:9])) == 9


def test_saved_and_loaded_it_is_the_same_and_changed_it_is_refused(tmp_path):
    index, _ = make_index()
    index.save_pretrained(tmp_path / "r")
    again = RegionIndex.from_pretrained(tmp_path / "r")
    assert np.array_equal(again.tokens, index.tokens) and again.config == index.config
    assert again.tokens.dtype == np.float16 and again.bytes_a_case == 20 * 12 * 2
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    for change, said in (({"grid": [4, 4]}, "do not fit"), ({"layer": 0}, "layer"), ({"schema_version": 9}, "schema")):
        (tmp_path / "r" / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(LibraryError, match=said):
            RegionIndex.from_pretrained(tmp_path / "r")
    with pytest.raises(LibraryError, match="not those of its cases"):
        index.check_cases(["a"] * 30)


def test_a_lesion_finds_lesions_of_its_kind(lesion_data, lesion_bundle):
    data = load_data(lesion_data)
    names = data.features["label"].names
    same = []
    for row in data:
        if row["split"] != "test" or not row[BOXES]:
            continue
        opened = lesion_bundle.open(read_record(row))
        found = opened.regions(row[BOXES][0], top_k=3)
        assert len(found) == 3 and [match.case.score for match in found] == sorted(
            (match.case.score for match in found), reverse=True
        )
        same += [match.case.label == names[row["label"]] for match in found]
    assert np.mean(same) > 0.7, "a third by chance"


def test_without_a_box_the_lesion_is_asked_for(lesion_bundle, lesion_data):
    row = next(row for row in load_data(lesion_data) if row["split"] == "test" and row[BOXES])
    opened = lesion_bundle.open(read_record(row))
    assert [m.case.id for m in opened.regions()] == [m.case.id for m in opened.regions(opened.lesion_map().box)]


def test_own_cases_are_left_out(lesion_bundle, lesion_data):
    row = next(row for row in load_data(lesion_data) if row["split"] == "train" and row[BOXES])
    image = read_record(row)
    opened = lesion_bundle.open(image)
    assert opened.picture.id not in {match.case.id for match in opened.regions(row[BOXES][0], 50)}
    other = lesion_bundle.open(image, exclude_group=row["group_id"])
    assert row["group_id"] not in {match.case.group_id for match in other.regions(row[BOXES][0], 50)}


def test_a_bundle_without_regions_says_how_to_get_them(tiny_bundles):
    with pytest.raises(BundleError, match="Build it with --regions"):
        tiny_bundles["shapes"].open(Image.new("RGB", (64, 64))).regions((0, 0, 1, 1))
