"""Jinja2 templates of the package: HTML is escaped, a missing value is an error."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(package: str, folder: str) -> Environment:
    """The templates `*.jinja` in a folder of a package; values are escaped in those named `*.html.jinja` only.

    A value that a template names and was not given raises jinja2.UndefinedError. Documentation:
    https://jinja.palletsprojects.com/en/stable/api/
    """
    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=lambda name: name is None or name.endswith((".html", ".html.jinja")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
