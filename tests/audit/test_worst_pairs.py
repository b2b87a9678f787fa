"""The worst pairs of an audit: worst first, each once, with both pictures."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from medssl.audit import near_duplicates
from medssl.audit.audit import audit_data
from medssl.audit.findings import Finding
from medssl.audit.fingerprint import fingerprint
from medssl.audit.near_duplicates import exact_pairs, near_pairs, turned_pairs
from medssl.audit.worst_pairs import worst_pairs
from medssl.backbones.embeddings import with_embeddings
from medssl.data.load import read_record
from medssl.errors import DataError
from medssl.images.read import image_id
from tests.folders import Folder, blobs


@pytest.fixture
def leaking(tmp_path):
    """40 pictures, of which four are in the test split again: equal, mirrored, re-saved, and alike in embedding."""
    folder = Folder(tmp_path / "data")
    for index in range(40):
        folder.add(f"{index}.png", "ab"[index % 2], "train" if index % 4 else "val", f"g{index}", "", blobs(index, 150))
    folder.add("equal.png", "a", "test", "x1", image=blobs(0, 150))
    folder.add("mirrored.png", "a", "test", "x2", image=blobs(2, 150).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    folder.add("saved.jpg", "a", "test", "x3", image=blobs(4, 150), quality=60)
    folder.add("broken.png", "a", "test", image=b"x")
    folder.add("alike.png", "b", "test", "x4", image=blobs(100, 150))
    return folder.write()


def picture(address):
    head, data = address.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_worst_first_each_once_with_pictures(leaking):
    audit = audit_data(leaking, progress=False)
    pairs = worst_pairs(audit.findings, leaking)
    assert {tuple(pair.files): pair.turn for pair in pairs} == {
        ("0.png", "equal.png"): "",
        ("2.png", "mirrored.png"): "mirrored left-right",
        ("4.png", "saved.jpg"): "",
    }
    assert {pair.severity for pair in pairs} == {"error"} and all("across splits" in pair.kind for pair in pairs)
    first = next(pair for pair in pairs if pair.files[1] == "equal.png")
    assert (first.labels, first.splits, first.groups, first.rows) == (
        ["a", "a"],
        ["val", "test"],
        ["g0", "x1"],
        [0, 40],
    )
    assert first.ids == [image_id(read_record(leaking[row])) for row in first.rows] and first.similarity == 1
    for pair in pairs:
        assert all(picture(address).size == (112, 112) for address in pair.thumbnails)
    assert worst_pairs(audit.findings, leaking, most=1, side=40)[0].files == pairs[0].files
    assert worst_pairs([], leaking) == worst_pairs(audit.findings, leaking, most=0) == []


def test_kinds_take_turns(leaking):
    pairs = worst_pairs(audit_data(leaking, progress=False).findings, leaking, most=3)
    assert len({pair.kind for pair in pairs}) == 3


def test_pairs_are_found_again_where_rows_were_left_out(leaking):
    whole = audit_data(leaking, progress=False)
    kept = leaking.select([row for row, name in enumerate(leaking["file_name"]) if name not in ("1.png", "broken.png")])
    vectors = np.random.default_rng(0).normal(size=(len(kept), 16))
    vectors[-1] = vectors[5] * 1.0001 + 0.001
    embedded = with_embeddings(kept, vectors)
    pairs = worst_pairs([*whole.findings, *audit_data(embedded, progress=False).findings], kept)
    assert ["6.png", "alike.png"] in [pair.files for pair in pairs]
    for pair in pairs:
        assert [kept[row]["file_name"] for row in pair.rows] == pair.files
    with pytest.raises(DataError, match=r"equal\.png is in the audit's findings and not in the data set"):
        worst_pairs(whole.findings, kept.select(range(30)))


def test_findings_come_back_from_json(leaking):
    findings = audit_data(leaking, progress=False).to_dict()["findings"]
    assert worst_pairs([Finding.from_dict(item) for item in findings], leaking)


def test_blocks_find_the_same_pairs(leaking, monkeypatch):
    rows = [row for row, name in enumerate(leaking["file_name"]) if name != "broken.png"]
    looks = [fingerprint(read_record(leaking[row])) for row in rows]

    def found():
        near = near_pairs(looks)
        return exact_pairs(looks), near, turned_pairs(looks, near)

    expected = found()
    assert [len(pairs) for pairs in expected] == [1, 1, 1]
    monkeypatch.setattr(near_duplicates, "BLOCK", 7)
    assert found() == expected
