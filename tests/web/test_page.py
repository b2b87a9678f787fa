"""The page: what its functions show, and how long it keeps what was uploaded."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from gradio.route_utils import delete_files_created_by_app
from gradio_client import Client, handle_file
from PIL import Image

from medssl.bundle.cases import split_cases
from medssl.data.tasks import NOT_FOR_DIAGNOSIS
from medssl.errors import ImageError
from medssl.explain import EXPLAINERS
from medssl.images import Picture
from medssl.web import render
from medssl.web.page import KEPT_SECONDS, Page, build_app, launch_options
from medssl.web.panels.heatmap import PREDICTED
from medssl.web.pictures import make_examples
from medssl.web.service import Service
from medssl.web.session import Visit
from tests import warm
from tests.conftest import ROOT, App


def quiet(*_args, **_more):
    """A progress bar that nobody sees."""


def test_the_page_starts_without_bundles_and_says_how_to_build_one():
    config = build_app({}).get_config_file()
    texts = " ".join(str(component["props"].get("value")) for component in config["components"])
    assert "No bundle is loaded" in texts and "scripts/build.py" in texts and "python app.py --bundle" in texts
    assert NOT_FOR_DIAGNOSIS in unescape(texts)


def test_every_component_has_an_elem_id_and_every_page_event_is_private(tiny_bundles):
    demo = build_app(tiny_bundles)
    for block in demo.blocks.values():
        if isinstance(block, gr.components.Component) and not isinstance(block, gr.State):
            assert block.elem_id, block
    public = [function.api_name for function in demo.fns.values() if function.api_visibility != "private"]
    assert sorted(public) == [
        "analyze",
        "analyze_group",
        "analyze_many",
        "classify",
        "explain",
        "explain_case",
        "lesion_map",
        "report",
        "report_many",
        "similar",
        "similar_regions",
        "tasks",
    ]
    assert demo.delete_cache[1] <= 3600
    options = launch_options()
    assert options["show_error"] is False and options["run_history"] is False


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_uploads_are_gone_when_their_time_is_over(tiny_bundles, shapes_image, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    demo = build_app({"shapes": tiny_bundles["shapes"]})
    examples = set(files_in(tmp_path))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        Client(url, verbose=False, download_files=False).predict(handle_file(str(shapes_image)), api_name="/analyze")
        assert len(files_in(tmp_path)) > len(examples) + 2
        delete_files_created_by_app(demo, 0)
        assert {path for path in files_in(tmp_path) if path.stat().st_size} <= examples
    finally:
        demo.close()


def test_uploads_are_gone_when_the_app_is_terminated(tiny_bundle_folders, shapes_image, tmp_path):
    app = App(["--bundle", str(tiny_bundle_folders["shapes"])], tmp_path / "log.txt", fresh=True).wait()
    client = Client(app.url, verbose=False, download_files=False)
    client.predict(handle_file(str(shapes_image)), api_name="/classify")
    uploads = [path for path in files_in(app.cache) if path.name == shapes_image.name]
    app.close()
    assert uploads and not any(path.exists() for path in uploads)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--bundle", "no/such/bundle"], "no/such/bundle"), (["--port", "99999"], "99999")],
)
def test_app_says_plainly_why_it_cannot_start(arguments, words):
    done = warm.run([ROOT / "app.py", *arguments])
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


class Opened:
    """A page whose panels have short names, as the tests ask them alone."""

    def __init__(self, page):
        self.page = page
        self.panels = {panel.name: panel for panel in page.panels}
        self.what, self.where, self.which = (self.panels[name] for name in ("what", "where", "which"))
        self.tabs, self.lesion, self.where = self.where.tabs, self.where.lesion, self.where.causal

    def __getattr__(self, name):
        return getattr(self.page, name)


@pytest.fixture
def page(tiny_bundles):
    with gr.Blocks():
        return Opened(Page(Service(tiny_bundles)))


def test_the_page_streams_class_then_cases_then_heatmap(page, shapes_image, shapes_analysis):
    visit = list(page.receive(None, [str(shapes_image)]))[-1][page.visit]
    shown = [dict(step) for step in page.run(visit, "shapes", PREDICTED, 0.5, "vit_cx", quiet)]
    assert [bool(step.get(page.which.gallery)) for step in shown] == [False, True, True]
    assert [step.get(page.where.overlay) is not None for step in shown] == [False, False, True]
    assert [step.get(page.tabs, gr.skip()) != gr.skip() for step in shown] == [
        True,
        False,
        False,
    ]  # opened tabs stay
    assert f'id="predicted-class">{shapes_analysis.prediction.label}' in shown[0][page.what.verdict]
    first, full = (np.asarray(Image.open(page.reblend(visit, opacity)[page.where.overlay])) for opacity in (0.0, 1.0))
    np.testing.assert_array_equal(first, np.asarray(visit.image))
    assert np.any(full != first)


def test_stop_ends_a_running_explanation(page, shapes_image):
    visit = Visit(Picture(Image.open(shapes_image).convert("RGB")))
    found = []
    for analysis in page.steps(visit, "shapes", "", "vit_cx", quiet):
        found.append(analysis)
        if analysis.cases is not None:
            visit.analysis = analysis
            assert "Stopped. Press Analyze" in page.stop_said(visit)[page.where.note]
    assert found[-1].cases is not None and found[-1].explanation is None
    assert page.stop_said(visit) == gr.skip()


def test_what_a_stopped_analysis_shows_last_leaves_what_stop_said(page, shapes_image):
    visit = Visit(Picture(Image.open(shapes_image).convert("RGB")))
    steps = page.run(visit, "shapes", "", 0.5, "vit_cx", quiet)
    next(steps), next(steps)
    assert "Stopped. Press Analyze" in page.stop_said(visit)[page.where.note]
    assert list(steps) == [gr.skip()]


def stopping(page, visit, said):
    """A progress bar whose first report presses Stop, and notes what the page is told then."""
    return lambda *_args, **_more: said.update(page.stop_said(visit))


def test_stop_ends_a_verification_a_comparison_and_another_heatmap_and_says_so(page, shapes_analysis):
    visit, said = Visit(Picture(shapes_analysis.image), analysis=shapes_analysis, chosen=0), {}
    press = stopping(page, visit, said)
    where, which = page.where, page.which
    assert page.where.check(visit, "shapes", press) == {where.verification: ""}
    assert page.which.compare(visit, "shapes", "", 0.5, "vit_cx", press)[which.own] is None
    assert page.where.explain_again(visit, "shapes", "", 0.5, "occlusion", "", press) == gr.skip()
    assert "verify again" in said[where.verification] and "Choose a case again" in said[which.why]
    assert "still the heatmap of before" in said[where.note] and "ViT-CX" in said[where.note]
    assert visit.analysis is shapes_analysis and visit.likeness is None and not visit.running


def test_a_new_choice_ends_the_comparison_of_the_old_one(page, shapes_analysis):
    visit = Visit(Picture(shapes_analysis.image), analysis=shapes_analysis)
    page.which.choose(visit, SimpleNamespace(index=0))

    def choose_another(*_args, **_more):
        page.which.choose(visit, SimpleNamespace(index=1))

    superseded = page.which.compare(visit, "shapes", "", 0.5, "vit_cx", choose_another)
    assert superseded[page.which.why] == "" and superseded[page.which.own] is None
    assert "case 2" in page.which.compare(visit, "shapes", "", 0.5, "vit_cx", quiet)[page.which.why]


def test_leaving_a_dropdown_as_it_was_changes_nothing(page, shapes_analysis):
    visit = Visit(Picture(shapes_analysis.image), task="shapes", analysis=shapes_analysis)
    for target in ("", shapes_analysis.prediction.label):
        assert page.where.explain_again(visit, "shapes", target, 0.5, "vit_cx", "", quiet) == gr.skip()
    assert page.change_task(visit, "shapes") == gr.skip() and visit.analysis is shapes_analysis
    assert page.change_task(visit, "tints")[page.where.overlay] is None and visit.analysis is None


def test_another_task_offers_its_own_explainers(page, tiny_bundles, shapes_analysis):
    tiny_bundles["tints"].explainers = {"vit_cx": "ViT-CX", "rise": "RISE"}
    try:
        shown = page.change_task(
            Visit(Picture(shapes_analysis.image), task="shapes", analysis=shapes_analysis), "tints"
        )
    finally:
        del tiny_bundles["tints"].explainers
    method = shown[page.where.method]
    assert method.choices == [("ViT-CX", "vit_cx"), ("RISE", "rise")] and method.value == "vit_cx"
    assert shown[page.where.verification] == "" and not shown[page.where.verify].visible


def test_a_bad_upload_clears_the_old_results_first(page, broken_file):
    steps = page.receive(None, [str(broken_file)])
    cleared = next(steps)
    assert cleared[page.visit] is None and cleared[page.which.gallery] is None and cleared[page.where.overlay] is None
    with pytest.raises(ImageError):
        next(steps)


def test_unfamiliar_images_and_missing_evidence_are_said_plainly(page, shapes_analysis):
    strange = replace(shapes_analysis.prediction, familiar=False, familiarity=0.1)
    assert render.UNFAMILIAR in render.warning(strange, 0.5)
    assert render.warning(replace(strange, familiar=True), 0.5) == ""
    blind = replace(
        shapes_analysis,
        explanation=replace(
            shapes_analysis.explanation, evidence=False, heatmap=np.zeros_like(shapes_analysis.explanation.heatmap)
        ),
    )
    shown = page.where.heatmap(blind, 0.5)
    assert "No evidence found" in shown[page.where.note]
    np.testing.assert_array_equal(np.asarray(Image.open(shown[page.where.overlay])), np.asarray(shapes_analysis.image))


def test_methods_that_do_not_look_at_the_class_say_so(page, tiny_bundles, shapes_image):
    for method in ("attention_rollout", "random"):
        analysis = tiny_bundles["shapes"].analyze(shapes_image, method=method)
        note = page.where.heatmap(analysis, 0.5)[page.where.note]
        assert EXPLAINERS[method].caution in unescape(note) and "Evidence for" not in note


def test_a_heatmap_is_verified_only_once_there_is_one(page, tiny_bundles, shapes_analysis):
    visit = Visit(Picture(shapes_analysis.image))
    with pytest.raises(ImageError, match="no heatmap to verify"):
        page.where.check(visit, "shapes", quiet)
    visit.analysis = shapes_analysis
    shown = page.where.check(visit, "shapes", quiet)[page.where.verification]
    assert "random maps" in shown and "deletion<br>(lower is better)" in shown
    wrong = render.verification(
        replace(
            found := tiny_bundles["shapes"].verify(shapes_analysis.image, shapes_analysis.explanation),
            insertion_minus_deletion=replace(found.insertion_minus_deletion, beats=0.5),
        )
    )
    assert "not clearly better than chance" in wrong


def test_a_case_is_compared_by_a_method_that_can(page, shapes_analysis):
    visit = Visit(Picture(shapes_analysis.image), analysis=shapes_analysis)
    assert shapes_analysis.cases[1].id in page.which.choose(visit, SimpleNamespace(index=1))[page.which.case]
    shown = page.which.compare(visit, "shapes", "", 1.0, "attention_rollout", quiet)
    why = shown[page.which.why]
    assert "case 2" in why and f"cosine {shapes_analysis.cases[1].score:.2f}" in why and "by ViT-CX" in why
    assert "Attention rollout (class-agnostic) cannot explain a likeness" in why
    own, theirs = (np.asarray(Image.open(shown[picture])) for picture in (page.which.own, page.which.theirs))
    assert own.shape == theirs.shape and np.any(own != np.asarray(shapes_analysis.image))
    plain = page.reblend(visit, 0.0)
    pictures = {page.which.own: shapes_analysis.image, page.which.theirs: shapes_analysis.cases[1].image}
    for picture, image in pictures.items():
        np.testing.assert_array_equal(np.asarray(Image.open(plain[picture])), np.asarray(image))
    assert "cannot" not in page.which.compare(visit, "shapes", "", 1.0, "grad_cam", quiet)[page.which.why]
    assert page.which.choose(visit, SimpleNamespace(index=99))[page.which.case] == ""


def test_names_from_data_cannot_become_markup(shapes_analysis):
    case = replace(shapes_analysis.cases[0], label="<img src=x onerror=alert(1)>", group_id="<b>")
    facts = render.case_facts(case, 1)
    assert "<img src=x" not in facts and "<b>Case 1</b>" in facts and "&lt;b&gt;" in facts


def test_probabilities_are_never_rounded_to_certainty():
    assert render.percent(0.99999) == "> 99.9 %" and render.percent(0.00001) == "< 0.1 %"
    assert render.percent(0.8764) == "87.6 %"


def checked(low):
    """Metrics of a bundle whose Grad-CAM is above random maps by an interval that starts there."""
    gap = {"value": 0.2, "low": low, "high": 0.3, "n": 12, "groups": 9}
    return {"explainer_check": {"explainers": {"grad_cam": {"insertion_minus_deletion": 0.4, "less_random": gap}}}}


def test_the_first_heatmap_is_the_chosen_one_and_says_why(page, tiny_bundles, shapes_image, monkeypatch):
    monkeypatch.setattr(tiny_bundles["shapes"], "metrics", checked(0.1))
    method = page.blank("shapes")[page.where.method].value
    assert method == "grad_cam"
    *_, shown = page.run(Visit(Picture.read(shapes_image)), "shapes", PREDICTED, 0.5, method, quiet)
    assert shown[page.where.overlay] and "Grad-CAM, because ViT-CX does not" in shown[page.where.note]
    assert "+0.200 [+0.100, +0.300]" in shown[page.where.note]


def test_nothing_is_painted_where_no_explainer_beats_random_maps(page, tiny_bundles, shapes_image, monkeypatch):
    monkeypatch.setattr(tiny_bundles["shapes"], "metrics", checked(-0.1))
    offered, visit = page.blank("shapes")[page.where.method], Visit(Picture.read(shapes_image))
    assert offered.value == "auto" and offered.choices[0] == ("none: no better than random maps", "auto")
    *_, shown = page.run(visit, "shapes", PREDICTED, 0.5, "auto", quiet)
    assert shown[page.where.overlay] is None and "No heatmap is shown" in shown[page.where.note]
    assert not shown[page.where.verify].visible
    by_hand = page.where.explain_again(visit, "shapes", PREDICTED, 0.5, "grad_cam", "", quiet)
    assert by_hand[page.where.overlay] and "does not beat random maps" in by_hand[page.where.note]
    page.which.choose(visit, SimpleNamespace(index=0))
    assert "by ViT-CX" in page.which.compare(visit, "shapes", "", 0.5, "auto", quiet)[page.which.why]
    back = page.where.explain_again(visit, "shapes", PREDICTED, 0.5, "auto", "", quiet)
    assert back[page.where.overlay] is None and "No heatmap is shown" in back[page.where.note]


def test_a_class_chosen_while_the_first_is_explained_is_the_one_that_stays(page, tiny_bundles, shapes_image):
    visit = Visit(Picture(Image.open(shapes_image).convert("RGB")))
    steps = page.run(visit, "shapes", "", 0.5, "vit_cx", quiet)
    next(steps), next(steps)
    other = next(label for label in tiny_bundles["shapes"].labels if label != visit.analysis.prediction.label)
    page.where.explain_again(visit, "shapes", other, 0.5, "vit_cx", "", quiet)
    assert visit.analysis.cases and visit.analysis.explanation.target == other
    list(steps)
    assert visit.analysis.explanation.target == other and visit.analysis.cases


def test_what_is_no_longer_kept_is_said(page):
    lesion = page.lesion
    for ask in (
        lambda: page.which.choose(None, SimpleNamespace(index=0)),
        lambda: page.turn(None, 3),
        lambda: list(page.receive(None, ["/nowhere/x.png"])),
        lambda: page.where.explain_again(None, "shapes", "dots", 0.5, "vit_cx", "<p>a note</p>", quiet),
        lambda: lesion.look_again(None, "shapes", "dots", "color", 0.5, "<p>a note</p>"),
    ):
        with pytest.raises(ImageError, match="no longer kept. Upload"):
            ask()
    assert page.turn(None, 1) == gr.skip()
    assert page.where.explain_again(None, "shapes", "dots", 0.5, "vit_cx", "", quiet) == gr.skip()
    untold = lesion.first_note(page.service.bundle("shapes"))
    assert lesion.look_again(None, "shapes", "", "color", 0.5, untold) == gr.skip()


def test_clear_and_a_new_choice_end_what_still_reads(tiny_bundles):
    demo = build_app(tiny_bundles)
    named = {number: function.name for number, function in demo.fns.items()}
    ended = {}
    for function in demo.fns.values():
        for _, event in function.targets:
            ended.setdefault(event, set()).update(named[number] for number in function.cancels)
    assert {"turn", "receive", "receive_example", "search_clicked", "run"} <= ended["clear"]
    assert {"turn", "search_lesion", "run"} <= ended["upload"] and {"turn", "receive"} <= ended["select"]


def test_a_bundle_without_pictures_has_no_example(tiny_bundles, tmp_path):
    bundle = tiny_bundles["shapes"]
    bare = SimpleNamespace(cases=split_cases(bundle.cases, images=False)["test"], labels=bundle.labels)
    assert [made["task"] for made in make_examples({"bare": bare, "shapes": bundle}, tmp_path)] == ["shapes"]


def test_a_closed_tabs_picture_is_kept_no_longer_than_an_open_ones(page):
    sessions = {
        "mine": SimpleNamespace(STATE_TTL_WHEN_CLOSED=3600),
        "other": SimpleNamespace(STATE_TTL_WHEN_CLOSED=3600),
    }
    app = SimpleNamespace(state_holder=sessions)
    page.tab_closed(SimpleNamespace(session_hash="mine", request=SimpleNamespace(app=app)))
    page.tab_closed(SimpleNamespace(session_hash="unknown", request=SimpleNamespace(app=app)))
    assert [session.STATE_TTL_WHEN_CLOSED for session in sessions.values()] == [KEPT_SECONDS, 3600]


def test_a_case_that_was_opened_while_the_heatmap_is_made_stays_open(page, shapes_image):
    visit = Visit(Picture(Image.open(shapes_image).convert("RGB")))
    steps = page.run(visit, "shapes", "", 0.5, "vit_cx", quiet)
    assert page.which.case in next(steps) and page.which.case in next(steps)
    page.which.choose(visit, SimpleNamespace(index=1))
    for step in steps:
        assert page.which.case not in step and step[page.which.gallery]
