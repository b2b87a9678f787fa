"""The benchmark of regions: hits on true boxes beside windows at random, with and without stored regions."""

import argparse
import sys

import pytest

from medssl.bundle.bundle import Bundle
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))
import regions  # noqa: E402


def arguments(bundle, data, *more):
    parser = argparse.ArgumentParser()
    regions.add_arguments(parser)
    given = ["--bundle", str(bundle), "--data", str(data), "--sizes", "40", "80", "--quiet", *map(str, more)]
    return parser.parse_args(given)


def test_found_regions_lie_on_lesions_more_often_than_windows_at_random(lesion_bundle_folder, lesion_data, capsys):
    found = regions.run(arguments(lesion_bundle_folder, lesion_data))
    assert found["region"]["value"] > found["random region"]["value"]
    assert found["region"]["n"] == found["class"]["n"] == 12 and list(found["milliseconds"]) == [40, 80]
    header, _, row = (line.strip("|").split("|") for line in capsys.readouterr().out.splitlines())
    assert len(header) == len(row) and row[0].strip() == "discs"


def test_a_bundle_without_regions_gets_them(lesion_bundle_folder, lesion_data, tmp_path, monkeypatch):
    stored = regions.run(arguments(lesion_bundle_folder, lesion_data, "--n", 4))
    plain = Bundle.load(lesion_bundle_folder)
    plain.regions = None
    monkeypatch.setattr(Bundle, "load", lambda place: plain)
    made = regions.run(arguments("plain", lesion_data, "--n", 4, "--cache", tmp_path))
    assert made["region"] == stored["region"] and made["kib_a_case"] == stored["kib_a_case"]


@pytest.mark.parametrize(("box", "inside"), [((0.1, 0.1, 0.3, 0.3), True), ((0.5, 0.1, 0.9, 0.3), False)])
def test_the_middle_decides(box, inside):
    assert regions.middle_inside(box, [(0.0, 0.0, 0.4, 0.4)]) is inside
