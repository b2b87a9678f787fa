"""The report of a study: the answer first, nothing from outside, every 1.000 with its interval, right plots."""

import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from medssl.metrics.classification import classification_metrics
from medssl.study.report.answer import answer, needed_share, not_shown
from medssl.study.report.document import Bullets, Heading, Paragraph, Picture, Table, to_html, to_markdown
from medssl.study.report.folder import file_names, write_report
from medssl.study.report.panels import colorings, confusion, live_map, reliability, shorten
from medssl.study.report.plots import accuracy_plot, label_plot
from medssl.study.report.tables import (
    findings_text,
    leakage_table,
    main_table,
    p_text,
    perfect_table,
    scores_with_audit,
)
from medssl.study.results import Row
from medssl.study.study import compare
from tests.models import save_model


@pytest.fixture(scope="module")
def study(tiny_data, tmp_path_factory):
    """Three kinds of backbones on two tasks; one has a planted copy across splits."""
    root = tmp_path_factory.mktemp("study")
    vit, resnet = (save_model(family, root / family) for family in ("vit", "resnet"))
    copied = shutil.copytree(tiny_data["tints"], root / "copied")
    rows = [line.split(",") for line in (copied / "metadata.csv").read_text().splitlines()]
    one, other = (next(row[0] for row in rows if row[2] == split) for split in ("train", "test"))
    shutil.copy(copied / one, copied / other)
    return compare(
        {"vit": vit, "conv": resnet, "untrained": f"random:{vit}"},
        {"shapes": tiny_data["shapes"], "tints <b>&": copied},
        against=["untrained"],
        shares=(0.2, 1.0),
        draws=2,
        n_bootstrap=50,
        cache_dir=root / "cache",
        progress=False,
        kinds={"vit": "self-supervised", "conv": "supervised"},
    )


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "out"
    write_report(study, out)
    return out


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.order = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data):
        if data.strip():
            self.order.append((self.tags[-1], data.strip()))


def test_the_page_asks_for_nothing_from_outside(written):
    text = (written / "report.html").read_text("utf-8")
    page = Page(text)
    assert len(page.addresses) >= 2 + 2 * 3 + 2 and all(a.startswith("data:image/png;base64,") for a in page.addresses)
    assert not {"script", "link", "iframe", "object", "base", "b"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import", text)
    assert "tints &lt;b&gt;&amp;" in text


def test_both_files_open_with_the_three_sentences(study, written):
    sentences = answer(study)
    assert len(sentences) == 3
    for sentence in sentences:
        assert sentence.endswith(".") and not re.search(r"[.!?] ", sentence) and sentence[0].isupper()
    opening = " ".join(sentences)
    page = Page((written / "report.html").read_text("utf-8"))
    assert [text for tag, text in page.order if tag in ("h1", "p")][1] == opening
    lines = (written / "report.md").read_text("utf-8").split("\n\n")
    assert lines[0].startswith("# ") and lines[1] == opening


def test_the_markdown_has_its_pictures_beside_it_and_no_place_of_this_machine(study, written):
    text = (written / "report.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 2 + 2 * 3
    for name in pictures:
        with Image.open(written / name) as image:
            assert image.format == "PNG" and min(image.size) > 150
    for name in ("report.md", "report.html"):
        assert str(written.parent.parent) not in (written / name).read_text("utf-8")
    for title in ("Scores", "Label efficiency", "What leakage flatters", "What this cannot show", "Audit of the data"):
        assert f"## {title}" in text
    assert "scikit-learn" in text and "seed 0" in text and "CPU cores" in text


def test_the_audit_stands_beside_the_scores_with_its_worst_pairs(study, written):
    table = scores_with_audit(study)
    assert "exact duplicate across splits (error)" in next(row for row in table.rows if row[0].startswith("tints"))[-1]
    assert study.tasks["tints <b>&"].worst
    report = (written / "report.md").read_text("utf-8")
    assert "the worst pairs of images" in report and "equal pixels" in report
    assert findings_text(None) == "not audited"


def test_every_perfect_accuracy_carries_its_interval_and_the_audit(study, tmp_path):
    task = next(name for name in study.tasks if name.startswith("tints"))
    rows = list(study.rows)
    place = next(i for i, row in enumerate(rows) if (row.task, row.head, row.metric) == (task, "linear", "accuracy"))
    rows[place] = replace(rows[place], value=1.0, low=0.541, high=1.0)
    perfect = replace(study, rows=rows)
    lines = [line for line in perfect_table(perfect).rows if "0.541" in line[3]]
    assert len(lines) == 1 and "1.000 [0.541, 1.000], 12 images of 6 groups" in lines[0][3]
    assert "exact duplicate across splits (error)" in lines[0][4]
    write_report(perfect, tmp_path)
    assert "1.000 [0.541, 1.000]" in (tmp_path / "report.html").read_text("utf-8")
    below = [replace(row, value=0.99) for row in study.rows if row.reference is None]
    assert not perfect_table(replace(study, rows=below)).rows


def contest(study, value, p, share=1.0, count=4):
    row = Row("shapes", "vit", "linear", "accuracy", value, value - 0.1, value + 0.1, 12, 6, 0)
    return [replace(row, reference="conv", share=share, p=p, p_holm=p, comparisons=count)] * count


@pytest.mark.parametrize(
    ("value", "p", "said"),
    [
        (0.2, 0.01, "The self-supervised backbones were better with all training labels"),
        (-0.2, 0.01, "The self-supervised backbones were worse"),
        (-0.2, 0.2, "No difference between self-supervised and supervised backbones is beyond chance"),
    ],
)
def test_the_answer_follows_the_figures(study, value, p, said):
    plain = [row for row in study.rows if row.reference is None]
    first, second, _ = answer(replace(study, rows=[*plain, *contest(study, value, p), *contest(study, 0.1, 0.9, 0.2)]))
    assert first.startswith(said)
    ahead, behind = (4, 0) if value > 0 else (0, 4)
    assert f"higher in {ahead} and lower in {behind} of 4" in first and f"{100 * value:+.1f} percentage points" in first
    assert "With 20% of the training groups" in second and "higher in 4 and lower in 0 of 4" in second
    mixed = [*plain, *contest(study, 0.2, 0.01), *contest(study, -0.2, 0.01)]
    assert answer(replace(study, rows=mixed))[0].startswith("Self-supervision helped in some comparisons")


def test_what_was_not_compared_is_said(study):
    rows = [row for row in study.rows if row.backbone == "vit" and row.reference is None]
    alone = replace(study, rows=rows, kinds={"vit": "self-supervised"})
    assert "cannot be answered here, because no supervised backbone" in answer(alone)[0]
    bare = replace(alone, rows=[row for row in rows if row.protocol == "groups" and row.share == 1.0])
    assert answer(bare)[1] == "Few labels were not tried."


def test_the_needed_share_is_the_first_that_comes_near():
    class Curves:
        kinds = {"a": "supervised"}
        rows = [
            Row("t", "a", "linear", "accuracy", value, 0, 1, 9, 3, 0, share=share)
            for share, value in ((0.01, 0.5), (0.1, 0.76), (0.5, 0.74), (1.0, 0.8))
        ]

    assert needed_share(Curves, "supervised") == 0.1 and needed_share(Curves, "self-supervised") is None


def test_what_cannot_be_shown_is_told_from_the_data(study):
    told = not_shown(study)
    assert any(line.startswith("shapes: only 6 groups in test") for line in told)
    assert any(line.startswith("shapes: one source only") for line in told)


def test_leakage_has_both_protocols_in_one_line(study):
    table = leakage_table(study)
    assert len(table.rows) == 6 and len(table.head) == 8
    for row in table.rows:
        values = [float(text.split()[0]) for text in row[2:5]]
        assert values[2] == pytest.approx(values[1] - values[0], abs=0.0016)


def test_reliability_and_confusion_are_the_plain_ones():
    random = np.random.default_rng(0)
    probabilities, labels = random.dirichlet(np.ones(3), 500), random.integers(0, 3, 500)
    confidence, accuracy, counts = reliability(probabilities, labels)
    groups = np.arange(500).astype(str)
    expected = classification_metrics(probabilities, labels, groups, list("abc"), n_bootstrap=2)
    assert counts.sum() == 500 and (counts > 0).all()
    assert (np.abs(confidence - accuracy) * counts).sum() / 500 == pytest.approx(expected["ece"]["value"])
    predicted = probabilities.argmax(axis=1)
    np.testing.assert_array_equal(confusion(predicted, labels, 3), confusion_matrix(labels, predicted))


def test_many_sources_share_a_color(study):
    task = replace(study.tasks["shapes"], sources=np.array([f"s{number % 30}" for number in range(60)]))
    (_, labels, names), (_, sources, titles) = colorings(task)
    assert names == ["dots", "plain", "stripes"] and len(titles) == 8 and titles[-1] == "other sources"
    assert sources.max() == 7 and len(labels) == len(sources) == 60
    assert shorten("diabetic_retinopathy_of_some_kind") == "diabetic retinopath…"


def test_plots_are_the_same_each_time(study):
    assert accuracy_plot(study) == accuracy_plot(study)
    with Image.open(io.BytesIO(label_plot(study))) as image:
        assert image.size[0] > 600


def test_the_map_says_of_each_dot_what_it_is_and_needs_no_script(study):
    task = next(iter(study.tasks))
    block = live_map(study, task, "map.png", "a map")
    about = study.tasks[task]
    assert [len(panel.dots) for panel in block.panels] == [len(each.map.rows) for each in about.measured.values()]
    row = int(next(iter(about.measured.values())).map.rows[3])
    x, y, kinds, words = block.panels[0].dots[3]
    label = about.task_labels.labels[row]
    assert words.startswith(about.task_labels.names[label]) and kinds[0] == label and about.sources[row] in words
    assert 0 <= x <= block.side and 0 <= y <= block.side
    text = to_html("T", "A.", [block, block])
    assert text.count("<circle") == 2 * sum(len(panel.dots) for panel in block.panels) and "<script" not in text
    assert text.count('type="radio"') == 4 and text.count(" checked>") == 2 and 'id="map-2-1"' in text
    assert to_markdown("T", "A.", [block]).endswith("![a map](map.png)\n") and block.png[:4] == b"\x89PNG"


def test_file_names_are_plain_and_different(study):
    tasks = dict.fromkeys(["A b", "a/B", "../../etc", "…"], next(iter(study.tasks.values())))
    names = file_names(replace(study, tasks=tasks), "map")
    assert list(names.values()) == ["map-a-b.png", "map-a-b-2.png", "map-etc.png", "map-task.png"]


def test_blocks_in_both_forms():
    blocks = [
        Heading("One & two"),
        Paragraph("<script>alert(1)</script>"),
        Bullets(["first", "second"]),
        Table(["a|b", "c"], [["1", "2 < 3"]]),
        Picture("p.png", "a plot", b"png"),
    ]
    assert to_markdown("T", "A.", blocks[2:]) == (
        "# T\n\nA.\n\n- first\n- second\n\n| a\\|b | c |\n| --- | --- |\n| 1 | 2 < 3 |\n\n![a plot](p.png)\n"
    )
    text = to_html("T", "A.", blocks)
    assert "<script>" not in text and "One &amp; two" in text and "2 &lt; 3" in text
    assert p_text(None) == "-" and p_text(0.0004) == "< 0.001" and p_text(0.04) == "0.040"


def test_the_main_table_has_a_line_for_each_task_and_backbone(study):
    assert [row[:2] for row in main_table(study).rows] == [[task, name] for task in study.tasks for name in study.kinds]
