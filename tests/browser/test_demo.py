"""`python app.py` without any argument: the synthetic demo, clicked through without a network."""

import pytest

from medssl.data.tasks import SYNTHETIC, TASKS
from medssl.demo.phantom import DRAWERS
from tests.conftest import App


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    running = App([], tmp_path_factory.mktemp("demo") / "log.txt").wait()
    yield running
    running.close()


def test_every_example_gets_class_cases_and_heatmap_and_says_it_is_synthetic(opened, demo):
    page = opened(demo.url)
    said = page.inner_text("#synthetic")
    assert SYNTHETIC in said and "scripts/build.py" in said
    drawn = "count => document.querySelectorAll('#examples .thumbnail-item').length === count"
    page.wait_for_function(drawn, arg=len(DRAWERS))
    examples, warned = page.locator("#examples .thumbnail-item"), []
    for number, task in enumerate(DRAWERS):
        examples.nth(number).click()
        page.wait_for_selector("#preview img")
        page.wait_for_function("old => document.querySelector('#task input').value === old", arg=TASKS[task].title)
        page.click("#analyze")
        page.wait_for_selector("#predicted-class")
        page.wait_for_selector("#heatmap img", state="attached")
        # A class with lesions opens on the lesion map, another on the causal one.
        assert page.locator("#lesion-map img, #heatmap img").locator("visible=true").count() == 1
        page.wait_for_function("document.querySelectorAll('#cases .thumbnail-item img').length === 6")
        assert SYNTHETIC in page.inner_text("#verdict") and TASKS[task].title in page.inner_text("#verdict")
        if page.inner_text("#warning").strip():
            warned.append(task)
    assert not warned, "an example looks like none of the loaded tasks"


def test_a_new_choice_of_case_wins_and_a_verification_can_be_stopped(opened, demo):
    page = opened(demo.url)
    page.locator("#examples .thumbnail-item").first.click()
    page.wait_for_selector("#preview img")
    page.click("#analyze")
    page.wait_for_selector("#lesion-map img")
    page.get_by_role("tab", name="Causal map").click()
    page.wait_for_selector("#heatmap img")
    cases = page.locator("#cases .thumbnail-item")
    cases.nth(1).click()
    page.wait_for_selector("#why :text('Explaining the likeness')")
    cases.nth(2).click()
    page.wait_for_selector("#why :text('Why case')")
    assert "Why case 3" in page.inner_text("#why") and "Case 3" in page.inner_text("#case")
    page.wait_for_selector("#likeness-case img")
    page.click("#verify")
    page.wait_for_selector("#verification :text('Verifying the heatmap')")
    page.click("#stop")
    page.wait_for_selector("#verification :text('Stopped')")


def test_the_client_is_told_that_the_tasks_are_synthetic(demo):
    from gradio_client import Client

    tasks = Client(demo.url, verbose=False).predict(api_name="/tasks")
    assert [task["name"] for task in tasks] == list(DRAWERS)
    assert all("synthetic" in task["title"] for task in tasks)
