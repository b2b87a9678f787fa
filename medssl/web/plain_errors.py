"""Every exception of a function of the page or the API, as a sentence for who asked."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from medssl.errors import MedSSLError
from medssl.web import render
from medssl.web.plain_answers import GENERAL_ERROR, places
from medssl.web.wanted import Stopped

UNWANTED = "Stopped: nobody waits for this any more."
log = logging.getLogger(__name__)


def plain_error(error: Exception, toast: bool) -> gr.Error:
    """What the user is told: a medssl error's own sentence, or a general one; the log gets places, never content."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, MedSSLError):
        # A toast renders HTML, and a sentence may name what stands in a file; a client gets the sentence as it is.
        return gr.Error(render.toast(str(error)) if toast else str(error), print_exception=False)
    if isinstance(error, Stopped):
        return gr.Error(UNWANTED, print_exception=False)
    log.error("%s at %s", type(error).__name__, places(error))
    return gr.Error(GENERAL_ERROR, print_exception=False)


def guarded(function: Callable, toast: bool = False) -> Callable:
    """The function, or generator function, with every exception as a plain `gr.Error` (for a toast: escaped)."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Iterator:  # noqa: ANN401
            try:
                yield from function(*args, **kwargs)
            except Exception as error:
                raise plain_error(error, toast) from error

        return stream

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise plain_error(error, toast) from error

    return call
