"""`python -m tests.warm_source SOCKET`: loads the libraries, then forks a program for each call of tests/warm.py."""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import tempfile
from types import ModuleType

import medssl
from tests.warm import NUMBER


def load_libraries() -> None:
    """Every file of the package, and with them all that they import."""
    for module in pkgutil.walk_packages(medssl.__path__, "medssl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()  # what is never collected is never copied


def next_call(calls: socket.socket) -> dict | None:
    """What is asked for next, None at the end; in the program's own process, with its output in place."""
    while True:
        size, files, *_ = socket.recv_fds(calls, NUMBER.size, 3)
        if not size:
            return None
        message = calls.recv(NUMBER.unpack(size)[0], socket.MSG_WAITALL)
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            calls.close()
            if not (program := os.fork()):
                break
            keep(program, files[0])
        for file in files:
            os.close(file)
    with open(os.devnull, encoding="utf-8") as nothing:
        for number, file in enumerate((nothing.fileno(), *files[1:])):
            os.dup2(file, number)
    for file in files:
        os.close(file)
    return json.loads(message)


def keep(program: int, answers: int) -> None:
    """Say a program's number and then how it ended, and end."""
    os.write(answers, NUMBER.pack(program))
    os.write(answers, NUMBER.pack(os.waitpid(program, 0)[1]))
    os._exit(0)


def keep_apart(uploads: str) -> None:
    """Give Gradio's modules the folder for uploads that they would have read when they were imported.

    In one folder for all apps, an app that ends deletes a picture that another app's call brought and still reads.
    """
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("gradio", "gradio_client") and hasattr(module, "DEFAULT_TEMP_DIR"):
            module.DEFAULT_TEMP_DIR = uploads


def run_program(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """What `python ARGUMENTS` does."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None  # of this environment
    keep_apart(os.environ.get("GRADIO_TEMP_DIR") or os.path.join(tempfile.gettempdir(), "gradio"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], folder
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    load_libraries()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if asked := next_call(socket.socket(fileno=int(sys.argv[1]))):
        run_program(asked["arguments"], asked["environment"], asked["folder"])
