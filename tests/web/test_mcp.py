"""The endpoints as an assistant's tools, asked by a real MCP client over HTTP."""

from __future__ import annotations

import ast
import asyncio
import base64

import pytest
from gradio import mcp as gradio_mcp
from gradio.route_utils import delete_files_created_by_app
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from medssl.web.decoded_uploads import DecodedUploads
from medssl.web.page import build_app, launch_options


def ask(url, *calls):
    """The tools that there are, and each call's answer."""

    async def session():
        async with (
            streamable_http_client(f"{url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as client,
        ):
            await client.initialize()
            tools = (await client.list_tools()).tools
            return tools, [await client.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(session())


def inside(path):
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def text(answer):
    # Gradio writes objects as Python does.
    return answer.content[0].text


def test_a_tool_gives_the_numbers_of_python(app, shapes_image, shapes_analysis):
    tools, answers = ask(
        app.url,
        ("classify", {"image": inside(shapes_image), "task": "shapes"}),
        ("similar", {"image": inside(shapes_image), "task": "shapes", "top_k": 4}),
        ("tasks", {}),
    )
    assert {tool.name for tool in tools} == {
        *("tasks", "classify", "explain", "explain_case", "similar", "analyze"),
        *("analyze_many", "analyze_group", "report_many", "lesion_map", "similar_regions", "report"),
    }
    assert all("dummy" not in tool.description and len(tool.description) > 40 for tool in tools)
    classified, found, listed = answers
    assert not classified.isError
    assert ast.literal_eval(text(classified)) == {
        "task": "shapes",
        "frame": 0,
        "frames": 1,
        **shapes_analysis.to_dict()["prediction"],
    }
    assert [case["id"] for case in ast.literal_eval(text(found))["cases"]] == [
        case.id for case in shapes_analysis.cases
    ]
    assert [task["name"] for task in ast.literal_eval(text(listed))] == ["shapes", "tints"]


def test_what_a_tool_cannot_do_is_said_without_a_trace(app, shapes_image, broken_file):
    _, answers = ask(
        app.url,
        ("classify", {"image": inside(shapes_image), "task": "spleen"}),
        ("classify", {"image": inside(broken_file)}),
        ("classify", {"image": "/etc/passwd"}),
    )
    assert all(answer.isError and "Traceback" not in text(answer) for answer in answers)
    assert "no task 'spleen'" in text(answers[0]) and "image" in text(answers[1]) and "root:" not in text(answers[2])


def test_an_image_inside_a_call_is_gone_when_its_time_is_over(tiny_bundles, shapes_image, tmp_path, monkeypatch):
    monkeypatch.setattr(gradio_mcp, "DEFAULT_TEMP_DIR", str(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.png").write_text("not of a call")
    demo = build_app({"shapes": tiny_bundles["shapes"]})
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        ask(url.rstrip("/"), ("classify", {"image": inside(shapes_image)}))
        written = [path for path in tmp_path.rglob("file*") if path.is_file()]
        assert written and written[0].read_bytes() == shapes_image.read_bytes()
        assert not set(DecodedUploads())  # an app started later leaves them to this one
        delete_files_created_by_app(demo, 3600)
        assert all(path.exists() for path in written)
        delete_files_created_by_app(demo, 0)
        assert not any(path.exists() for path in written) and (tmp_path / "other" / "notes.png").exists()
    finally:
        demo.close()


@pytest.mark.parametrize("installed", [True, False])
def test_the_extra_decides(monkeypatch, installed):
    monkeypatch.setattr("medssl.web.page.find_spec", lambda name: object() if installed and name == "mcp" else None)
    assert launch_options()["mcp_server"] is installed
