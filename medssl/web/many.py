"""Many uploaded pictures through a bundle, a batch a turn, so that others are served in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from medssl.bundle.bundle import Bundle, suggest_task
from medssl.bundle.many import PictureRow, batches, score
from medssl.errors import ImageError
from medssl.images.picture import Picture
from medssl.images.safe_reader import SafePictures
from medssl.web.service import Service


def scored(
    service: Service,
    bundle: Bundle,
    pictures: SafePictures,
    tell: Callable[[float, str], None],
    exclude_group: str | None = None,
    first: int = 0,
) -> Iterator[list[PictureRow]]:
    """A row a picture, in order, a batch at a time; files are decoded outside of the model's turn. `tell` may raise to
    stop.

    `first` is the number of the first picture, 0 for all.
    """
    for batch in batches(bundle, pictures, tell, first):
        with service.turn(slow=True):
            rows = score(bundle, batch, exclude_group)
        yield rows


def suggested(service: Service, pictures: SafePictures) -> str:
    """The task that the picture shown first resembles most. Raises ImageError where none can be read."""
    _, picture = first_shown(pictures)
    with service.turn():
        return suggest_task(service.bundles, picture)[0].name


def first_shown(pictures: SafePictures, first: int | None = None) -> tuple[int, Picture]:
    """The picture shown where nobody chose, and its number: the first that can be read, from `first` on.

    Without `first`, of a series the middle slice, as its ends show little. Raises ImageError where none can be read.
    """
    said, series = "", pictures.entries[0].series
    if first is None:
        first = sum(entry.series == series for entry in pictures.entries) // 2 if series else 0
    for number in [*range(first, len(pictures)), *range(first)]:
        try:
            return number, pictures[number]
        except ImageError as error:
            said = said or str(error)
    raise ImageError(f"None of the {len(pictures)} pictures can be read. The first: {said}")
