"""Jinja2 templates of the package: HTML is escaped, a missing value is an error."""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined

from medssl.text import code, code_block, markdown, quoted

FILTERS = {"md": markdown, "code": code, "code_block": code_block, "quoted": quoted}


def of_text(written: Callable[[str], str]) -> Callable[[object], str]:
    """A filter that also takes numbers."""
    return lambda value: written(str(value))


def environment(package: str, folder: str) -> Environment:
    """The templates `*.jinja` in a folder of a package; values are escaped in those named `*.html.jinja` only.

    In Markdown a value passes through one of FILTERS: `md` in text, `code` in a line, `quoted` in Python code.
    A value that a template names and was not given raises jinja2.UndefinedError. Documentation:
    https://jinja.palletsprojects.com/en/stable/api/
    """
    templates = Environment(
        loader=PackageLoader(package, folder),
        autoescape=lambda name: name is None or name.endswith((".html", ".html.jinja")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update({name: of_text(written) for name, written in FILTERS.items()})
    return templates
