"""The part of the page that asks which cases have a region like one of the picture: two clicks, or the lesion's."""

from __future__ import annotations

import gradio as gr
from gradio.blocks import Block

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.errors import ImageError
from medssl.library.regions import Box
from medssl.report.lesions import canvas_of, draw_box, draw_cross, outlined
from medssl.web import render
from medssl.web.panels.panel import QUICK, SLOW, Panel, Updates, Wiring, plain
from medssl.web.served_files import served_png
from medssl.web.session import GONE, Visit

REGIONS_SHOWN = 6
FIRST = "Click on one corner of the region, then on the opposite one."
NO_REGIONS = "This bundle holds no regions to compare with. Build it with --regions."
SECOND = "Now click on the opposite corner."
NARROW = 0.01  # of a side: two clicks nearer than this are widened to it


def box_between(one: tuple[float, float], other: tuple[float, float]) -> Box:
    """The box with these opposite corners (x, y), fractions; never without an area."""
    sides = []
    for a, b in zip(one, other, strict=True):
        low, high = max(0.0, min(a, b)), min(1.0, max(a, b))
        middle = min(max((low + high) / 2, NARROW / 2), 1 - NARROW / 2)
        sides.append((min(low, middle - NARROW / 2), max(high, middle + NARROW / 2)))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


class RegionsPanel(Panel):
    """The picture to click on, and the cases with their regions outlined."""

    name = "regions"

    def __init__(self, bundle: Bundle) -> None:
        self.picture = gr.Image(
            label="Which cases have a region like this one",
            alt_text="the image, to click on",
            format="png",
            interactive=False,
            height=330,
            buttons=["fullscreen"],
            elem_id="region-picture",
        )
        self.note = gr.HTML(self.first_note(bundle), elem_id="region-note")
        self.by_lesion = gr.Button(
            "Similar by lesion", visible=self.by_lesion_shown(bundle), size="sm", elem_id="similar-by-lesion"
        )
        self.gallery = gr.Gallery(
            label="Cases with their most similar region",
            format="png",
            columns=3,
            allow_preview=True,
            interactive=False,
            buttons=[],
            object_fit="contain",
            elem_id="region-cases",
        )
        self.found = [self.picture, self.note, self.gallery]
        self.outputs = [*self.found, self.by_lesion]

    def first_note(self, bundle: Bundle) -> str:
        """What stands there before there is a picture to click on."""
        return "" if bundle.regions else render.note(NO_REGIONS)

    def by_lesion_shown(self, bundle: Bundle) -> bool:
        """Whether the lesion's region can be searched."""
        return bool(bundle.localizer and bundle.regions)

    def blank(self, bundle: Bundle) -> Updates:
        """Nothing to click on."""
        button = gr.Button(visible=self.by_lesion_shown(bundle))
        return {self.picture: None, self.note: self.first_note(bundle), self.gallery: None, self.by_lesion: button}

    def show(self, bundle: Bundle, analysis: Analysis, opacity: float) -> Updates:
        """The picture, to be clicked on, as soon as there is one."""
        if analysis.cases is not None or bundle.regions is None:
            return {}
        picture = served_png(self.picture, canvas_of(analysis.image))
        return {self.picture: picture, self.note: render.note(FIRST), self.gallery: None}

    def changed_by(self, visit: Visit) -> list[Block]:
        """The picture with a corner or a box on it, and what was found for it."""
        return self.found if visit.corner or visit.region else []

    def connect(self, wiring: Wiring) -> list:
        """Two clicks, or the button."""
        self.service = wiring.service
        # Each of two quick clicks counts, also while the search that follows the one before still waits.
        marked = [self.picture, self.note]
        clicks = self.picture.select(plain(self.click), wiring.visit, marked, trigger_mode="multiple", **QUICK)
        searching = {"show_progress_on": self.gallery, **SLOW}
        searched = clicks.success(
            plain(self.search_clicked),
            [wiring.visit, wiring.task],
            self.found,
            trigger_mode="multiple",
            **searching,
        )
        by_lesion = self.by_lesion.click(
            plain(self.search_lesion), [wiring.visit, wiring.task], self.found, **searching
        )
        return [searched, by_lesion]

    def click(self, visit: Visit | None, event: gr.SelectData) -> Updates:
        """The first click marks a corner, the second makes the box."""
        if visit is None:
            raise ImageError(GONE)
        canvas = canvas_of(visit.image)
        place = tuple(min(1.0, max(0.0, at / side)) for at, side in zip(event.index, canvas.size, strict=True))
        if visit.corner is None:
            visit.corner, visit.region = place, None
            draw_cross(canvas, place)
        else:
            visit.region, visit.corner = box_between(visit.corner, place), None
            draw_box(canvas, visit.region)
        return {
            self.picture: served_png(self.picture, canvas),
            self.note: render.note(SECOND if visit.corner else "Searching the cases' regions."),
        }

    def search_clicked(self, visit: Visit | None, task: str) -> Updates:
        """The cases for the box, once there is one."""
        if visit is None or visit.region is None:
            return gr.skip()
        return self.searched(visit, task, visit.region)

    def search_lesion(self, visit: Visit | None, task: str) -> Updates:
        """The cases for the region in which the localizer sees a lesion."""
        if visit is None:
            raise ImageError(GONE)
        visit.corner = None
        with self.service.turn(slow=True):
            box = visit.analyzer(task, self.service.bundle(task)).lesion_map().box
        return self.searched(visit, task, box)

    def searched(self, visit: Visit, task: str, box: Box) -> Updates:
        """The picture with the box, and the cases with their regions."""
        with self.service.turn(slow=True):
            found = visit.analyzer(task, self.service.bundle(task)).regions(box, REGIONS_SHOWN)
        shown = [
            (served_png(self.gallery, outlined(match.case.image, match.box)), render.case_caption(match.case))
            for match in found
            if match.case.image is not None
        ]
        return {
            self.picture: served_png(self.picture, outlined(visit.image, box)),
            self.note: render.note(
                FIRST + " The number under a case is the mean cosine of the region's patches to it."
            ),
            self.gallery: shown,
        }
