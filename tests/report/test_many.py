"""Reports of folders and groups: the answers of analyze_many and analyze_group, and no name of anything in them."""

from __future__ import annotations

from html import unescape
from shutil import copyfile

import pytest

from medssl.data.tasks import NOT_FOR_DIAGNOSIS
from medssl.images.pictures import read_images
from medssl.report import compose_many_report
from medssl.report.many import spans
from tests.conftest import sample
from tests.images.test_pictures import SECOND, shuffled, zipped
from tests.report.test_report import MOST_BYTES, SECRET, addresses, at_noon, tagged


@pytest.fixture(scope="module")
def folder(tiny_data, tmp_path_factory):
    """Two pictures, a DICOM file full of tags and a broken one, all with a name that must not be seen."""
    place = tmp_path_factory.mktemp(f"{SECRET}-folder")
    for number, label in enumerate(("dots", "stripes")):
        copyfile(sample(tiny_data["shapes"], label), place / f"{SECRET}-{number}.png")
    tagged(place / f"{SECRET}-scan.dcm")
    (place / f"{SECRET}-x.png").write_bytes(b"broken")
    return place


def test_a_folder_is_told_in_the_order_of_need_and_without_names(folder, tiny_bundles):
    bundle, pictures = tiny_bundles["shapes"], read_images(folder)
    rows = bundle.analyze_many(pictures)
    made = compose_many_report(bundle, rows, pictures, now=at_noon)
    text = unescape(made.html)
    assert NOT_FOR_DIAGNOSIS in text and "4 pictures, 1 of them could not be read" in text
    assert made.facts["counts"]["unreadable"] == 1 and made.facts["group"] is None
    assert [row["number"] for row in made.facts["pictures"]] == [1, 2, 3, 4]
    expected = {row.number + 1: row.prediction.label if row.prediction else None for row in rows}
    assert {row["number"]: row["label"] for row in made.facts["pictures"]} == expected
    table = text[text.index('<table class="rows">') :]
    assert table.index("could not be read") < min(table.index(label) for label in set(filter(None, expected.values())))
    assert SECRET not in made.html + made.json and ".png" not in made.html + made.json
    assert all(one.startswith("data:image/") for one in addresses(made.html)) and len(made.html) < MOST_BYTES


def test_a_group_has_one_answer_with_its_deciding_pictures_explained(folder, tiny_bundles):
    bundle, pictures = tiny_bundles["shapes"], read_images(folder)[:2]
    rows = bundle.analyze_many(pictures)
    group = bundle.answer_group(f"{SECRET} Doe", rows, pictures.notes)
    made = compose_many_report(bundle, rows, pictures, group, now=at_noon)
    text = unescape(made.html)
    assert made.facts["group"]["prediction"] == group.to_dict()["prediction"]
    assert group.rule in text and all(near.group_id in text for near in group.similar)
    assert made.html.count('class="case"') == len(group.deciding) == len(made.facts["group"]["deciding"]) > 0
    assert SECRET not in made.html + made.json


def several(bundle):
    """The pictures, rows and answers of two series and of a picture of none."""
    first, second = shuffled(range(1, 6)), shuffled(range(11, 16), series=SECOND)
    files = {f"{SECRET}-{at}-{name}": data for at, part in enumerate((first, second)) for name, data in part.items()}
    pictures = read_images(zipped({**files, f"{SECRET}-x.png": b"broken"}))
    rows = bundle.analyze_many(pictures)
    return pictures, rows, bundle.answer_group("", rows, pictures.notes)


def test_each_series_has_its_answer_and_its_deciding_pictures(tiny_bundles):
    bundle = tiny_bundles["shapes"]
    pictures, rows, group = several(bundle)
    made = compose_many_report(bundle, rows, pictures, group, now=at_noon)
    text = unescape(made.html)
    assert "series 1 of 2?" in text and "Pictures 1 to 5." in text and "Pictures 6 to 10." in text
    assert "Of 1 more series nothing could be read" in text and "all pictures together" not in text
    assert made.html.count('class="case"') == sum(len(answer.deciding) for answer in group.answers) > 0
    facts = made.facts["group"]
    assert facts["prediction"] is None and facts["unanswered"] == 1
    for told, answer in zip(facts["answers"], group.answers, strict=True):
        assert told["prediction"] == answer.to_dict()["prediction"]
        assert told["pictures"] == [row.number + 1 for row in answer.rows]
        assert [one["number"] for one in told["deciding"]] == [one.row.number + 1 for one in answer.deciding]
    assert SECRET not in made.html + made.json and all(near.group_id in text for near in group.answers[1].similar)


def test_of_many_series_the_deciding_pictures_are_named_but_not_explained(tiny_bundles, monkeypatch):
    monkeypatch.setattr("medssl.report.many.MOST_EXPLAINED", 2)
    bundle = tiny_bundles["shapes"]
    pictures, rows, group = several(bundle)
    made = compose_many_report(bundle, rows, pictures, group)
    assert made.html.count('class="case"') == sum(len(answer.deciding[:1]) for answer in group.answers)
    others = [one for answer in group.answers for one in answer.deciding[1:]]
    assert others and all(f"picture {one.row.number + 1} ({one.effect:+.3f})" in made.html for one in others)


def test_numbers_are_told_as_spans():
    assert spans([1, 2, 3, 7, 9, 10]) == "1 to 3, 7, 9 to 10" and spans([4]) == "4"


def test_only_so_many_pictures_are_shown(tiny_bundles, shapes_image, monkeypatch):
    monkeypatch.setattr("medssl.report.many.MOST_ROWS", 3)
    bundle, pictures = tiny_bundles["shapes"], [bundle_picture(shapes_image)] * 5
    rows = bundle.analyze_many([shapes_image] * 5)
    made = compose_many_report(bundle, rows, pictures)
    assert "2 more pictures are in the JSON" in made.html and len(made.facts["pictures"]) == 5


def bundle_picture(path):
    from medssl.images.picture import Picture

    return Picture.read(path)
