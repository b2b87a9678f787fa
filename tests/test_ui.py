"""The page and its endpoints, asked by a real client of a real server in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio.route_utils import delete_files_created_by_app
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from medssl import render
from medssl.api import GENERAL_ERROR, MODEL, check_top_k, guarded
from medssl.bundle import suggest_task
from medssl.errors import ImageError, LibraryError
from medssl.explain import EXPLAINERS
from medssl.heatmap_panel import PREDICTED
from medssl.tasks import NOT_FOR_DIAGNOSIS
from medssl.ui import Page, build_app, launch_options
from medssl.visit import Visit
from tests.conftest import ROOT, TINY_TASKS, App, sample


@pytest.fixture(scope="module")
def shapes_image(tiny_data):
    return sample(tiny_data["shapes"], "dots")


@pytest.fixture(scope="module")
def expected(tiny_bundles, shapes_image):
    return tiny_bundles["shapes"].analyze(shapes_image, top_k=4)


def without(facts, *names):
    return {key: value for key, value in facts.items() if key not in names}


def test_tasks_lists_what_is_loaded(client, tiny_bundles):
    listed = client.predict(api_name="/tasks")
    assert [task["name"] for task in listed] == list(tiny_bundles)
    for task in listed:
        assert task["labels"] == list(TINY_TASKS[task["name"]])
        assert task["figures"] == json.loads(json.dumps(tiny_bundles[task["name"]].metrics))
        assert task["backbone"]["dimension"] == 32 and task["backbone"]["id"] == "tiny-dinov2"
        assert task["title"] and task["modality"]


def test_classify_gives_the_numbers_of_python(client, shapes_image, expected):
    answer = client.predict(handle_file(str(shapes_image)), "shapes", api_name="/classify")
    assert answer == {"task": "shapes", **expected.to_dict()["prediction"]}


def test_classify_without_a_task_takes_the_suggested_one(client, tiny_bundles, tiny_data):
    image = sample(tiny_data["tints"], "jade")
    answer = client.predict(handle_file(str(image)), api_name="/classify")
    found = suggest_task(tiny_bundles, image)
    assert answer["task"] == found[0].name
    assert answer["suggested"] == [vars(suggestion) for suggestion in found]


def test_explain_gives_the_map_in_the_images_own_frame(client, shapes_image, expected):
    answer = client.predict(handle_file(str(shapes_image)), "shapes", "", api_name="/explain")
    explanation = expected.explanation
    assert answer["target"] == explanation.target and answer["masks"] == explanation.masks
    assert answer["probability"] == pytest.approx(explanation.probability, abs=1e-6)
    assert explanation.evidence and explanation.heatmap.max() == 1
    heatmap = np.asarray(Image.open(answer["heatmap"]), np.float64) / 65535
    assert heatmap.shape == explanation.heatmap.shape
    np.testing.assert_allclose(heatmap, explanation.heatmap, atol=1 / 65535)
    np.testing.assert_array_equal(np.asarray(Image.open(answer["overlay"])), explanation.overlay(expected.image))


def test_explain_takes_another_class(client, shapes_image, expected):
    other = next(label for label in TINY_TASKS["shapes"] if label != expected.prediction.label)
    answer = client.predict(handle_file(str(shapes_image)), "shapes", other, api_name="/explain")
    assert answer["target"] == other
    assert answer["probability"] == pytest.approx(expected.prediction.probabilities[other], abs=1e-3)


def test_similar_gives_the_cases_of_python_with_thumbnails(client, shapes_image, expected):
    answer = client.predict(handle_file(str(shapes_image)), "shapes", 4, api_name="/similar")
    assert [without(case, "thumbnail") for case in answer["cases"]] == expected.to_dict()["cases"]
    for case, known in zip(answer["cases"], expected.cases, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(case["thumbnail"])), np.asarray(known.image))


def test_analyze_gives_all_of_bundle_analyze(client, shapes_image, expected):
    answer = client.predict(handle_file(str(shapes_image)), "shapes", "", 4, True, api_name="/analyze")
    python = expected.to_dict()
    assert set(answer) == set(python)
    assert answer["prediction"] == python["prediction"]
    assert [without(case, "thumbnail") for case in answer["cases"]] == python["cases"]
    assert without(answer["explanation"], "heatmap", "overlay", "seconds") == without(python["explanation"], "seconds")
    quick = client.predict(handle_file(str(shapes_image)), "shapes", "", 4, False, api_name="/analyze")
    assert quick["explanation"] is None and quick["prediction"] == python["prediction"]


def test_another_explainer_and_a_verification_give_the_numbers_of_python(client, tiny_bundles, shapes_image):
    answer = client.predict(handle_file(str(shapes_image)), "shapes", "", "grad_cam", True, api_name="/explain")
    python = tiny_bundles["shapes"].analyze(shapes_image, method="grad_cam", verify=True)
    assert answer["method"] == "grad_cam"
    for name in ("deletion", "insertion", "insertion_minus_deletion"):
        assert answer["verification"][name]["value"] == pytest.approx(getattr(python.verification, name).value)
    listed = {task["name"]: task["explainers"] for task in client.predict(api_name="/tasks")}
    assert listed["shapes"] == tiny_bundles["shapes"].explainers and "vit_cx" in listed["shapes"]


def test_a_case_is_explained_on_both_pictures(client, tiny_bundles, shapes_image, expected):
    case = expected.cases[2]
    answer = client.predict(handle_file(str(shapes_image)), case.id, "shapes", api_name="/explain_case")
    python = tiny_bundles["shapes"].explain_case(shapes_image, case)
    assert without(answer["case"], "thumbnail") == expected.to_dict()["cases"][2]
    for side, found in (("explanation", python.explanation), ("mirrored", python.mirrored)):
        assert answer[side]["probability"] == pytest.approx(found.probability, abs=1e-6)
        heatmap = np.asarray(Image.open(answer[side]["heatmap"]), np.float64) / 65535
        np.testing.assert_allclose(heatmap, found.heatmap, atol=1 / 65535)


@pytest.mark.parametrize(
    ("endpoint", "arguments", "words"),
    [
        ("/classify", ("spleen",), ["'spleen'", "shapes, tints"]),
        ("/explain", ("shapes", "jade"), ["'jade'", "dots, plain, stripes"]),
        ("/explain", ("shapes", "", "lime"), ["'lime'", "vit_cx"]),
        ("/explain", ("shapes", "", "evidence_map"), ["looks at patches"]),
        ("/explain_case", ("nobody", "shapes"), ["no case 'nobody'"]),
        ("/similar", ("shapes", 0), ["top_k is 0", "1 to 50"]),
        ("/similar", ("shapes", 51), ["top_k is 51", "1 to 50"]),
        ("/similar", ("shapes", 2.5), ["top_k is 2.5", "whole numbers"]),
        ("/analyze", ("shapes", "", -1, True), ["top_k is -1", "1 to 50"]),
    ],
)
def test_wrong_arguments_are_named(client, shapes_image, endpoint, arguments, words):
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(str(shapes_image)), *arguments, api_name=endpoint)
    for word in words:
        assert word in str(caught.value)


def test_bad_files_get_their_sentence_and_the_server_lives_on(client, app, shapes_image, broken_file, tmp_path):
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    for path in (broken_file, tmp_path / "empty.dcm", tmp_path / "page.svg"):
        with pytest.raises(ImageError) as python:
            from medssl.images import read_image

            read_image(path)
        for endpoint in ("/classify", "/explain", "/similar", "/analyze"):
            with pytest.raises(AppError) as caught:
                client.predict(handle_file(str(path)), "shapes", api_name=endpoint)
            assert str(python.value).split(":")[-1].strip() in str(caught.value)
    assert app.process.poll() is None
    assert client.predict(handle_file(str(shapes_image)), "shapes", api_name="/classify")["label"]
    assert "Traceback" not in app.log.read_text("utf-8")


def test_files_of_the_server_cannot_be_asked_for(app, tiny_data):
    # Over plain HTTP: the Python client would upload the path it is given.
    secret = {"path": str(sample(tiny_data["shapes"], "plain")), "meta": {"_type": "gradio.FileData"}}
    call = f"{app.url}/gradio_api/call/classify"
    event = httpx.post(call, json={"data": [secret, "shapes"]}).json()["event_id"]
    told = httpx.get(f"{call}/{event}", timeout=30).text
    assert told.startswith("event: error") and "probabilit" not in told and secret["path"] not in told


def test_only_the_six_endpoints_are_callable_and_documented(client, app):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/tasks", "/classify", "/explain", "/explain_case", "/similar", "/analyze"}
    for name, endpoint in endpoints.items():
        assert len(endpoint["description"]) > 30, name
    parameters = {item["parameter_name"]: item for item in endpoints["/analyze"]["parameters"]}
    assert list(parameters) == ["image", "task", "target", "top_k", "explain", "method", "verify"]
    assert not parameters["image"]["parameter_has_default"] and parameters["top_k"]["parameter_default"] == 6


def test_two_clients_at_once_get_their_own_answers(app, tiny_bundles, tiny_data):
    images = [(name, sample(tiny_data[name], label)) for name, labels in TINY_TASKS.items() for label in labels]

    def ask(question):
        name, image = question
        return Client(app.url, verbose=False).predict(handle_file(str(image)), name, api_name="/classify")

    with ThreadPoolExecutor(3) as pool:
        for (name, image), answer in zip(images, pool.map(ask, images), strict=True):
            own = tiny_bundles[name].analyze(image, explain=False).to_dict()["prediction"]
            assert answer == {"task": name, **own}


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
    assert sorted(public) == ["analyze", "classify", "explain", "explain_case", "similar", "tasks"]
    assert demo.delete_cache[1] <= 3600
    options = launch_options()
    assert options["show_error"] is False and options["run_history"] is False


def test_the_api_without_a_bundle_says_so(shapes_image):
    demo = build_app({})
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        client = Client(url, verbose=False)
        assert client.predict(api_name="/tasks") == []
        with pytest.raises(AppError, match="No bundle is loaded"):
            client.predict(handle_file(str(shapes_image)), api_name="/analyze")
    finally:
        demo.close()


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
    app = App(["--bundle", str(tiny_bundle_folders["shapes"])], tmp_path / "log.txt").wait()
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
    done = subprocess.run([sys.executable, "app.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


def test_errors_of_the_program_itself_are_not_shown(caplog):
    def fails():
        raise ZeroDivisionError("the pixels are 1 2 3")

    def streams():
        yield 1
        raise ZeroDivisionError("the pixels are 1 2 3")

    for function in (fails, lambda: list(guarded(streams)())):
        with pytest.raises(gr.Error) as caught:
            guarded(function)()
        assert caught.value.message == GENERAL_ERROR
    assert "ZeroDivisionError" in caplog.text and "1 2 3" not in caplog.text


def test_a_toast_is_escaped_and_the_api_is_not():
    def fails():
        raise ImageError("<b>bold</b> isn't allowed")

    with pytest.raises(gr.Error) as toast:
        guarded(fails, toast=True)()
    with pytest.raises(gr.Error) as plain:
        guarded(fails)()
    assert toast.value.message == "&lt;b&gt;bold&lt;/b&gt; isn't allowed"
    assert plain.value.message == "<b>bold</b> isn't allowed"


def test_top_k_must_be_a_whole_number_in_range():
    assert check_top_k(7.0) == 7
    for value in (0, 51, 1.5, None, float("nan"), float("inf")):
        with pytest.raises(LibraryError):
            check_top_k(value)
    assert MODEL["concurrency_limit"] == 1


@pytest.fixture
def page(tiny_bundles):
    with gr.Blocks():
        return Page(tiny_bundles)


def test_the_page_streams_class_then_cases_then_heatmap(page, shapes_image, expected):
    visit = list(page.receive(None, str(shapes_image)))[-1][page.visit]
    shown = [dict(step) for step in page.run(visit, "shapes", PREDICTED, 0.5, "vit_cx", lambda *_args, **_more: None)]
    assert [bool(step[page.which.gallery]) for step in shown] == [False, True, True]
    assert [step[page.where.overlay] is not None for step in shown] == [False, False, True]
    assert f'id="predicted-class">{expected.prediction.label}' in shown[0][page.verdict]
    first = page.where.reblend(visit, 0.0)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(visit.image))
    assert np.any(np.asarray(page.where.reblend(visit, 1.0)) != np.asarray(first))


def test_stop_ends_a_running_explanation(page, shapes_image):
    visit = Visit(Image.open(shapes_image).convert("RGB"))
    found = []
    for analysis in page.steps(visit, "shapes", "", "vit_cx", lambda *_args, **_more: None):
        found.append(analysis)
        if analysis.cases is not None:
            visit.analysis = analysis
            assert "Stopped" in page.stop_said(visit)
    assert found[-1].cases is not None and found[-1].explanation is None


def test_a_bad_upload_clears_the_old_results_first(page, broken_file):
    steps = page.receive(None, str(broken_file))
    cleared = next(steps)
    assert cleared[page.visit] is None and cleared[page.which.gallery] is None and cleared[page.where.overlay] is None
    with pytest.raises(ImageError):
        next(steps)


def test_unfamiliar_images_and_missing_evidence_are_said_plainly(page, expected):
    strange = replace(expected.prediction, familiar=False, familiarity=0.1)
    assert render.UNFAMILIAR in render.warning(strange, 0.5)
    assert render.warning(replace(strange, familiar=True), 0.5) == ""
    blind = replace(
        expected,
        explanation=replace(expected.explanation, evidence=False, heatmap=np.zeros_like(expected.explanation.heatmap)),
    )
    shown = page.where.explained(blind, 0.5)
    assert "No evidence found" in shown[page.where.note]
    np.testing.assert_array_equal(np.asarray(shown[page.where.overlay]), np.asarray(expected.image))


def test_methods_that_do_not_look_at_the_class_say_so(page, tiny_bundles, shapes_image):
    for method in ("attention_rollout", "random"):
        analysis = tiny_bundles["shapes"].analyze(shapes_image, method=method)
        note = page.where.explained(analysis, 0.5)[page.where.note]
        assert EXPLAINERS[method].caution in unescape(note) and "Evidence for" not in note


def test_a_heatmap_is_verified_only_once_there_is_one(page, expected):
    visit = Visit(expected.image)
    with pytest.raises(ImageError, match="no heatmap to verify"):
        page.verify(visit, "shapes", lambda *_args, **_more: None)
    visit.analysis = expected
    shown = page.verify(visit, "shapes", lambda *_args, **_more: None)[page.where.verification]
    assert "random maps" in shown and "deletion (lower is better)" in shown
    wrong = render.verification(
        replace(
            found := page.bundles["shapes"].verify(expected.image, expected.explanation),
            insertion_minus_deletion=replace(found.insertion_minus_deletion, beats=0.5),
        )
    )
    assert "no better than chance" in wrong


def test_a_case_is_compared_by_a_method_that_can(page, expected):
    visit = Visit(expected.image, analysis=expected)
    event = SimpleNamespace(index=1)
    quiet = lambda *_args, **_more: None  # noqa: E731
    shown = page.compare(visit, "shapes", "attention_rollout", 1.0, event, quiet)
    why = shown[page.which.why]
    assert "case 2" in why and "by ViT-CX" in why and "Attention rollout (class-agnostic) cannot say" in why
    own, theirs = (np.asarray(shown[picture]) for picture in (page.which.own, page.which.theirs))
    assert own.shape == theirs.shape and np.any(own != np.asarray(expected.image))
    assert "cannot say" not in page.compare(visit, "shapes", "grad_cam", 1.0, event, quiet)[page.which.why]
    assert page.which.facts(visit, SimpleNamespace(index=99)) == {page.which.case: ""}


def test_names_from_data_cannot_become_markup(expected):
    case = replace(expected.cases[0], label="<img src=x onerror=alert(1)>", group_id="<b>")
    facts = render.case_facts(case, 1)
    assert "<img src=x" not in facts and "<b>Case 1</b>" in facts and "&lt;b&gt;" in facts


def test_probabilities_are_never_rounded_to_certainty():
    assert render.percent(0.99999) == "> 99.9 %" and render.percent(0.00001) == "< 0.1 %"
    assert render.percent(0.8764) == "87.6 %"
