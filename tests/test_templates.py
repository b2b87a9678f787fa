"""The templates' environment: escaped in HTML, as it is in Markdown, loud where a value is missing."""

import sys

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from medssl.templates import environment


@pytest.fixture
def pages(tmp_path, monkeypatch):
    folder = tmp_path / "a_package_of_templates" / "pages"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    for name in ("a.html.jinja", "a.md.jinja"):
        (folder / name).write_text("<p>{{ label }}</p>\n{% if note is defined %}{{ note }}{% endif %}\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield environment("a_package_of_templates", "pages")
    sys.modules.pop("a_package_of_templates", None)


def test_html_is_escaped_and_markdown_is_not(pages):
    assert "<p>&lt;b&gt; &#34;x&#34;</p>" in pages.get_template("a.html.jinja").render(label='<b> "x"')
    assert '<p><b> "x"</p>' in pages.get_template("a.md.jinja").render(label='<b> "x"')


def test_a_template_made_of_text_is_escaped(pages):
    assert pages.from_string("{{ label }}").render(label="<b>") == "&lt;b&gt;"


def test_a_missing_value_or_template_is_an_error(pages):
    with pytest.raises(UndefinedError, match="label"):
        pages.get_template("a.html.jinja").render()
    with pytest.raises(TemplateNotFound):
        pages.get_template("b.html.jinja")


def test_the_filters_of_markdown_take_text_and_numbers(pages):
    pages.autoescape = False
    assert pages.from_string("{{ text | md }} {{ 3 | md }} {{ text | code }}").render(text="a|b") == r"a\|b 3 `a|b`"
