"""One picture of one upload in one browser tab, and what was found for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from medssl.bundle.analyzer import Analysis, Analyzer, PictureEncodings
from medssl.bundle.bundle import Bundle
from medssl.errors import ImageError
from medssl.explain.likeness import Likeness
from medssl.images.picture import Picture
from medssl.library.regions import Box
from medssl.web.many import first_shown
from medssl.web.uploaded import Uploaded
from medssl.web.uploads import is_zip, list_uploads, read_upload
from medssl.web.work import Work

ANALYSIS = "analysis"  # the name of the run that Analyze starts
GONE = "This picture is no longer kept. Upload it again."


@dataclass
class Visit(Work):
    """One picture in one browser tab: what was chosen and found so far, and the name of what is running.

    Where the upload holds several pictures, `many` is all of them, and this one is number `number` (from 0).
    """

    picture: Picture
    group: str | None = None
    added: str = ""  # the id of what was added to the library of it
    task: str = ""
    analysis: Analysis | None = None
    chosen: int | None = None
    likeness: Likeness | None = None
    corner: tuple[float, float] | None = None
    region: Box | None = None
    opened: dict[str, Analyzer] = field(default_factory=dict)
    many: Uploaded | None = None
    number: int = 0

    def __post_init__(self) -> None:
        self.encodings = PictureEncodings(self.picture)

    @classmethod
    def of(cls, paths: Sequence[str]) -> Visit:
        """What was uploaded, at the picture that is shown where nobody chose. Raises ImageError."""
        first = None
        if len(paths) == 1 and not is_zip(paths[0]):
            picture = read_upload(paths[0])
            if picture.frames == 1:
                return cls(picture)
            first = picture.frame
        pictures = list_uploads(paths)
        number, picture = first_shown(pictures, first)
        return cls(picture, many=Uploaded(pictures) if len(pictures) > 1 else None, number=number)

    def turned(self, number: int) -> Visit:
        """Another picture (from 0) of the same upload, of which nothing is found yet. Raises ImageError."""
        if self.many is None:
            raise ImageError("This upload is a single picture.")
        picture = self.many.pictures[number]
        return Visit(picture, self.group, task=self.task, many=self.many, number=number)

    def name_group(self, group: str) -> None:
        """Of which patient or slide the upload is, whose own cases its pictures are not compared with."""
        if self.group != (group or None):
            self.group = group or None
            self.opened.clear()

    @property
    def image(self) -> Image.Image:
        """The picture's pixels."""
        return self.picture.image

    def analyzer(self, name: str, bundle: Bundle) -> Analyzer:
        """The picture opened for the bundle of a task: once, whatever is asked of it."""
        if name not in self.opened:
            self.opened[name] = Analyzer.open(bundle, self.encodings, self.group)
        return self.opened[name]

    def end_all(self) -> tuple[str, ...]:
        """Make all that runs end, for this picture and for all of the upload. Returns the names."""
        return tuple(filter(None, [self.end(), self.many.end() if self.many else ""]))

    def halt_all(self) -> tuple[str, ...]:
        """As `end_all`, for somebody who pressed Stop."""
        return tuple(filter(None, [self.end(), self.many.halt() if self.many else ""]))

    def forget(self) -> None:
        """Nothing is found any more."""
        self.analysis = self.chosen = self.likeness = self.corner = self.region = None
