"""Folders and Hub data sets of labeled images, split by group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.runtime import lazy_exports

if TYPE_CHECKING:
    from medssl.data.load import load_data as load_data
    from medssl.data.load import read_record as read_record
    from medssl.data.split import split_data as split_data
    from medssl.data.tasks import TASKS as TASKS
    from medssl.data.tasks import Task as Task
    from medssl.data.tasks import get_task as get_task

_PLACES = {
    "TASKS": "medssl.data.tasks",
    "Task": "medssl.data.tasks",
    "get_task": "medssl.data.tasks",
    "load_data": "medssl.data.load",
    "read_record": "medssl.data.load",
    "split_data": "medssl.data.split",
}

__getattr__, __all__ = lazy_exports(__name__, _PLACES)
