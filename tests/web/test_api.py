"""The endpoints, asked by a real client of a real server in another process."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from html import unescape

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from medssl.audit.findings import without_file_names
from medssl.bundle.bundle import suggest_task
from medssl.errors import ImageError, LibraryError
from medssl.web.api import check_top_k
from medssl.web.page import build_app, launch_options
from medssl.web.plain_answers import GENERAL_ERROR
from medssl.web.plain_errors import guarded
from tests.conftest import TINY_TASKS, sample


def without(facts, *names):
    return {key: value for key, value in facts.items() if key not in names}


def test_tasks_lists_what_is_loaded(client, tiny_bundles):
    listed = client.predict(api_name="/tasks")
    assert [task["name"] for task in listed] == list(tiny_bundles)
    for task in listed:
        assert task["labels"] == list(TINY_TASKS[task["name"]])
        figures = without_file_names(json.loads(json.dumps(tiny_bundles[task["name"]].metrics)))
        assert task["figures"] == figures
        assert task["backbone"]["dimension"] == 32 and task["backbone"]["id"] == "tiny-dinov2"
        assert task["title"] and task["modality"]


def test_classify_gives_the_numbers_of_python(client, shapes_image, shapes_analysis):
    answer = client.predict(handle_file(str(shapes_image)), "shapes", api_name="/classify")
    assert answer == {"task": "shapes", "frame": 0, "frames": 1, **shapes_analysis.to_dict()["prediction"]}


def test_classify_without_a_task_takes_the_suggested_one(client, tiny_bundles, tiny_data):
    image = sample(tiny_data["tints"], "jade")
    answer = client.predict(handle_file(str(image)), api_name="/classify")
    found = suggest_task(tiny_bundles, image)
    assert answer["task"] == found[0].name
    assert answer["suggested"] == [vars(suggestion) for suggestion in found]


def test_explain_gives_the_map_in_the_images_own_frame(client, shapes_image, shapes_analysis):
    answer = client.predict(handle_file(str(shapes_image)), "shapes", "", api_name="/explain")
    explanation = shapes_analysis.explanation
    assert answer["target"] == explanation.target and answer["masks"] == explanation.masks
    assert answer["probability"] == pytest.approx(explanation.probability, abs=1e-6)
    assert explanation.evidence and explanation.heatmap.max() == 1
    heatmap = np.asarray(Image.open(answer["heatmap"]), np.float64) / 65535
    assert heatmap.shape == explanation.heatmap.shape
    np.testing.assert_allclose(heatmap, explanation.heatmap, atol=1 / 65535)
    np.testing.assert_array_equal(np.asarray(Image.open(answer["overlay"])), explanation.overlay(shapes_analysis.image))


def test_explain_takes_another_class(client, shapes_image, shapes_analysis):
    other = next(label for label in TINY_TASKS["shapes"] if label != shapes_analysis.prediction.label)
    answer = client.predict(handle_file(str(shapes_image)), "shapes", other, api_name="/explain")
    assert answer["target"] == other
    assert answer["probability"] == pytest.approx(shapes_analysis.prediction.probabilities[other], abs=1e-3)


def test_similar_gives_the_cases_of_python_with_thumbnails(client, shapes_image, shapes_analysis):
    answer = client.predict(handle_file(str(shapes_image)), "shapes", 4, api_name="/similar")
    assert [without(case, "thumbnail") for case in answer["cases"]] == shapes_analysis.to_dict()["cases"]
    for case, known in zip(answer["cases"], shapes_analysis.cases, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(case["thumbnail"])), np.asarray(known.image))


def test_analyze_gives_all_of_bundle_analyze(client, shapes_image, shapes_analysis):
    answer = client.predict(handle_file(str(shapes_image)), "shapes", "", 4, True, api_name="/analyze")
    python = shapes_analysis.to_dict()
    assert set(answer) == {*python, "frame", "frames", "notes"}
    assert answer["prediction"] == python["prediction"]
    assert [without(case, "thumbnail") for case in answer["cases"]] == python["cases"]
    assert without(answer["explanation"], "heatmap", "overlay", "seconds") == without(python["explanation"], "seconds")
    quick = client.predict(handle_file(str(shapes_image)), "shapes", "", 4, False, api_name="/analyze")
    assert quick["explanation"] is None and quick["prediction"] == python["prediction"]


def test_another_explainer_and_a_verification_give_the_numbers_of_python(client, tiny_bundles, shapes_image):
    answer = client.predict(handle_file(str(shapes_image)), "shapes", "", "grad_cam", True, api_name="/explain")
    python = tiny_bundles["shapes"].analyze(shapes_image, method="grad_cam", verify=True)
    assert answer["method"] == "grad_cam" and answer["explained_by"] == python.explained_by
    for name in ("deletion", "insertion", "insertion_minus_deletion"):
        assert answer["verification"][name]["value"] == pytest.approx(getattr(python.verification, name).value)
    listed = {task["name"]: task["explainers"] for task in client.predict(api_name="/tasks")}
    assert listed["shapes"] == tiny_bundles["shapes"].explainers and "vit_cx" in listed["shapes"]


def test_a_case_is_explained_on_both_pictures(client, tiny_bundles, shapes_image, shapes_analysis):
    case = shapes_analysis.cases[2]
    answer = client.predict(handle_file(str(shapes_image)), case.id, "shapes", api_name="/explain_case")
    python = tiny_bundles["shapes"].explain_case(shapes_image, case)
    expected = shapes_analysis.to_dict()["cases"][2]
    assert without(answer["case"], "thumbnail", "score") == without(expected, "score")
    assert answer["case"]["score"] == pytest.approx(expected["score"], abs=1e-9)
    for side, found in (("explanation", python.explanation), ("mirrored", python.mirrored)):
        assert answer[side]["probability"] == pytest.approx(found.probability, abs=1e-6)
        heatmap = np.asarray(Image.open(answer[side]["heatmap"]), np.float64) / 65535
        np.testing.assert_allclose(heatmap, found.heatmap, atol=1 / 65535)


def test_a_method_that_cannot_explain_a_likeness_says_so(client, shapes_image, shapes_analysis):
    with pytest.raises(AppError, match="(?i)likeness"):
        arguments = (shapes_analysis.cases[0].id, "shapes", "attention_rollout")
        client.predict(handle_file(str(shapes_image)), *arguments, api_name="/explain_case")


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
            from medssl.images.read import read_image

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


def test_only_the_public_endpoints_are_callable_and_documented(client, app):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {
        "/tasks",
        "/classify",
        "/explain",
        "/explain_case",
        "/lesion_map",
        "/similar",
        "/similar_regions",
        "/analyze",
        "/analyze_many",
        "/analyze_group",
        "/report_many",
        "/report",
    }
    for name, endpoint in endpoints.items():
        assert len(endpoint["description"]) > 30, name
    parameters = {item["parameter_name"]: item for item in endpoints["/analyze"]["parameters"]}
    assert list(parameters) == ["image", "task", "target", "top_k", "explain", "method", "verify", "frame"]
    assert not parameters["image"]["parameter_has_default"] and parameters["top_k"]["parameter_default"] == 6


def test_two_clients_at_once_get_their_own_answers(app, tiny_bundles, tiny_data):
    images = [(name, sample(tiny_data[name], label)) for name, labels in TINY_TASKS.items() for label in labels]

    def ask(question):
        name, image = question
        return Client(app.url, verbose=False).predict(handle_file(str(image)), name, api_name="/classify")

    with ThreadPoolExecutor(3) as pool:
        for (name, image), answer in zip(images, pool.map(ask, images), strict=True):
            own = tiny_bundles[name].analyze(image, explain=False).to_dict()["prediction"]
            assert answer == {"task": name, "frame": 0, "frames": 1, **own}


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
    assert "<b>" not in toast.value.message and unescape(toast.value.message) == "<b>bold</b> isn't allowed"
    assert plain.value.message == "<b>bold</b> isn't allowed"


def test_top_k_must_be_a_whole_number_in_range():
    assert check_top_k(7.0) == 7
    for value in (0, 51, 1.5, None, float("nan"), float("inf")):
        with pytest.raises(LibraryError):
            check_top_k(value)
