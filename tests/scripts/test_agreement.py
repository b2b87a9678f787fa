"""The benchmark of agreement: what is drawn, what a reference is, and a run that goes on where it was."""

import json
import sys

import numpy as np
import pytest

from medssl.backbones.backbone import Backbone
from medssl.errors import DataError
from tests.conftest import ROOT, make_folder

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))
import agreement  # noqa: E402


def test_one_picture_in_three_is_of_an_unsure_model_in_every_beginning():
    rng = np.random.default_rng(0)
    confidences = [rng.uniform(0.4, 1, 40), rng.uniform(0.6, 1, 60), np.full(20, 0.99)]
    drawn = agreement.draw_pictures(confidences, 30, seed=1)
    assert len(set(drawn)) == 30 == len(drawn)
    for count in (3, 6, 9, 30):
        unsure = sum(confidences[task][row] < agreement.UNSURE for task, row in drawn[:count])
        assert unsure >= count / 3
    assert {task for task, _ in drawn[:9]} == {0, 1, 2}
    assert drawn == agreement.draw_pictures(confidences, 60, seed=1)[:30]
    assert drawn != agreement.draw_pictures(confidences, 30, seed=2)


def test_a_draw_ends_where_there_are_no_more_pictures():
    confidences = [np.array([0.5, 0.9, 0.95]), np.array([0.6])]
    assert sorted(agreement.draw_pictures(confidences, 50, seed=0)) == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_a_reference_is_the_mean_and_its_self_correlation_is_of_one_run_with_the_others():
    rng = np.random.default_rng(0)
    runs = [rng.random((5, 7)) for _ in range(6)]
    mean, own = agreement.make_reference(runs)
    np.testing.assert_allclose(mean, np.mean(runs, axis=0), rtol=1e-6)
    plain = [
        np.corrcoef(run.ravel(), np.mean(runs[:number] + runs[number + 1 :], axis=0).ravel())[0, 1]
        for number, run in enumerate(runs)
    ]
    assert own == pytest.approx(np.mean(plain))
    assert agreement.make_reference([runs[0]] * 6)[1] == pytest.approx(1)
    assert agreement.pearson(runs[0], np.ones((5, 7))) == 0


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["agreement.py", "--quiet", *map(str, arguments)])
    code = agreement.main()
    return code, capsys.readouterr().out


def test_a_run_writes_each_picture_goes_on_where_it_was_and_fills_the_page(
    tiny_backbone, tmp_path, monkeypatch, capsys
):
    data = make_folder(tmp_path / "shades", ("amber", "dots", "jade"), seed=1)
    references, page = tmp_path / "references", tmp_path / "page.md"
    page.write_text(f"Before\n{agreement.BEGIN}\nstale\n{agreement.END}\nAfter\n")
    measure = ("--references", references, "--backbone", tiny_backbone, "--data", data, "--cache", tmp_path / "cache")
    run(monkeypatch, capsys, *measure, "--count", 2, "--runs", 1)
    folder = references / tiny_backbone.name
    first = {place.name: place.stat().st_mtime_ns for place in folder.iterdir()}
    assert sorted(first) == ["000.json", "000.npy", "001.json", "001.npy"]
    out = tmp_path / "table.json"
    code, text = run(monkeypatch, capsys, *measure, "--count", 3, "--runs", 1, "--out", out, "--page", page)
    assert code == 0
    assert {name: (folder / name).stat().st_mtime_ns for name in first} == first
    result = json.loads((folder / "000.json").read_text())
    assert set(result["agreement"]) == {mode.name for mode in agreement.MODES}
    assert all(-1 <= value <= 1 for value in [result["self_correlation"], *result["agreement"].values()])
    assert result["passes"]["uncapped"] == 1 + 2 * result["masks"]
    rows = json.loads(out.read_text())
    assert rows[0]["pictures"] == 3 and 0 <= rows[0]["holds"] <= 3
    assert page.read_text().startswith("Before\n") and page.read_text().endswith(f"{agreement.END}\nAfter\n")
    assert "stale" not in page.read_text() and text.strip() in page.read_text()
    assert Backbone.from_pretrained(tiny_backbone).id.endswith(rows[0]["backbone"])


def test_what_cannot_be_measured_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(DataError, match="holds no results"):
        run(monkeypatch, capsys, "--references", tmp_path)
    with pytest.raises(DataError, match="needs --data"):
        run(monkeypatch, capsys, "--references", tmp_path, "--backbone", "x")
