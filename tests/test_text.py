"""Text of strangers in a terminal, in Markdown and in code: shown as it is, obeyed by nothing."""

import ast

import pytest

from medssl.text import code, code_block, markdown, printable, quoted

markdown_it = pytest.importorskip("markdown_it")

HOSTILE = [
    *(
        "a|b",
        "```",
        "<script>alert(1)</script>",
        "two\nlines",
        "\x1b[31mred",
        "__init__",
        "_x_",
        "*b*",
        "a\\|b",
        "&lt;",
    ),
    *("[x](http://127.0.0.1)", "![x](y)", "~~no~~", "`", "a``b`c", "# h", "\u202egpj.exe", "a\udc80.png", '"q"', "\\"),
]
PLAIN = ["no_tumor", "squamous_cell_carcinoma", "H&E tile", "0.95 [0.90, 1.00]", "CC BY 4.0 (figshare 1)", "Äther"]


def inline(text: str):
    """The one paragraph that a Markdown text is, as its parts."""
    parts = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    assert [part.type for part in parts] == ["paragraph_open", "inline", "paragraph_close"]
    return parts[1].children


@pytest.mark.parametrize("text", HOSTILE + PLAIN)
def test_markdown_shows_the_text_and_nothing_else(text):
    parts = inline(f"label {markdown(text)} end")
    assert {part.type for part in parts} <= {"text", "text_special"}
    assert "".join(part.content for part in parts) == f"label {printable(text)} end"


@pytest.mark.parametrize("text", PLAIN)
def test_usual_text_stays_as_it_is(text):
    assert markdown(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_one_cell(text):
    table = f"| a | b |\n| --- | --- |\n| {markdown(text)} | 1 |"
    parts = markdown_it.MarkdownIt("commonmark").enable("table").parse(table)
    cells = [parts[index + 1] for index, part in enumerate(parts) if part.type == "td_open"]
    assert [cell.type for cell in cells] == ["inline", "inline"] and cells[1].content == "1"
    assert all(child.type in ("text", "text_special") for child in cells[0].children)


@pytest.mark.parametrize("text", HOSTILE + PLAIN)
def test_code_in_a_line_is_one_piece_of_code(text):
    parts = inline(f"label {code(text)} end")
    assert [part.type for part in parts] == ["text", "code_inline", "text"]
    assert parts[1].content == printable(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_block_of_code_ends_where_it_ends(text):
    parts = markdown_it.MarkdownIt("commonmark").parse(code_block(f"first\n{text}\nlast") + "\n\nafter")
    assert [part.type for part in parts] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert parts[0].content.startswith("first\n") and parts[0].content.endswith("\nlast\n")


@pytest.mark.parametrize("text", HOSTILE + PLAIN)
def test_a_quoted_text_is_the_text(text):
    assert ast.literal_eval(quoted(text)) == text and "\n" not in quoted(text) and "\x1b" not in quoted(text)
