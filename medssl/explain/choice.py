"""The explainer that `method="auto"` means, and the line that says why: read from what the build measured."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from medssl.explain.check import FEWEST_GROUPS, beats_random, choose_explainer
from medssl.explain.registry import EXPLAINERS
from medssl.explain.vit_cx import ViTCX
from medssl.metrics.metric import figure_text

AUTO = "auto"


@dataclass(frozen=True)
class ExplainerChoice:
    """What validation said of a bundle's explainers: `figures` by method, empty where nothing was measured.

    The figures are those of `check_explainers`. `checked` is False where too few groups were measured to choose by;
    ViT-CX is the choice then.
    """

    figures: Mapping[str, Mapping] = field(default_factory=dict)

    @classmethod
    def of(cls, metrics: Mapping, available: Container[str] = EXPLAINERS) -> ExplainerChoice:
        """The choice that stands in a bundle's metrics, among the explainers that are available here.

        Without figures for a bundle that was not checked.
        """
        found = metrics.get("explainer_check", {}).get("explainers", {})
        return cls({method: figures for method, figures in found.items() if method in available})

    @property
    def groups(self) -> int:
        """How many groups of validation the first explainers were measured on."""
        return max((found["less_random"]["groups"] for found in self.figures.values()), default=0)

    @property
    def checked(self) -> bool:
        """Whether enough was measured to choose by."""
        return self.groups >= FEWEST_GROUPS

    @property
    def method(self) -> str | None:
        """The explainer that is shown first; None where none beats random maps."""
        return choose_explainer(self.figures) if self.checked else ViTCX.method

    def resolve(self, method: str) -> str | None:
        """The explainer that a method asked for means: itself, or for "auto" the chosen one, None where none is."""
        return self.method if method == AUTO else method

    def line(self, method: str) -> str:
        """Which explainer shows what was asked for ("auto" or a method's name), why, and by how much."""
        if method not in (AUTO, self.method):
            return self.line_by_hand(method)
        if not self.checked:
            return f"{ViTCX.title}, {self.why_not_checked()}."
        chosen = self.method
        if chosen == ViTCX.method:
            return f"{ViTCX.title}, which beats random maps on validation: {self.gap(chosen)}."
        vit_cx = self.figures.get(ViTCX.method)
        if chosen is None:
            tried = ", ".join(title_of(name) for name in self.figures)
            compared = f" {ViTCX.title} does not: {self.gap(ViTCX.method)}." if vit_cx else ""
            return (
                f"No heatmap is shown: on validation no explainer of this model beats random maps.{compared} Tried: "
                f"{tried}. One chosen by hand is shown all the same."
            )
        compared = f" ({figure_text(vit_cx['less_random'], signed=True)})" if vit_cx else ""
        return (
            f"{title_of(chosen)}, because {ViTCX.title} does not beat random maps on validation{compared} and this is "
            f"the best that does: {self.gap(chosen)}."
        )

    def line_by_hand(self, method: str) -> str:
        """The line of an explainer that was asked for by name."""
        if method not in self.figures or not self.checked:
            return f"{title_of(method)}, chosen by hand; {self.why_not_checked(method)}."
        verb = "beats" if beats_random(self.figures[method]) else "does not beat"
        return f"{title_of(method)}, chosen by hand; on validation it {verb} random maps: {self.gap(method)}."

    def why_not_checked(self, method: str = ViTCX.method) -> str:
        """Why nothing can be said of an explainer."""
        if method in self.figures:
            return (
                f"not checked: only {self.groups} groups of validation images were measured against random maps, and "
                f"{FEWEST_GROUPS} are needed"
            )
        return "not checked against random maps when this bundle was built"

    def gap(self, method: str) -> str:
        """By how much an explainer is above random maps, and on what."""
        gap = self.figures[method]["less_random"]
        return (
            f"insertion minus deletion {figure_text(gap, signed=True)} against theirs, {gap['n']} images of "
            f"{gap['groups']} groups"
        )


def title_of(method: str) -> str:
    """An explainer's title; its name where this version has no such explainer."""
    return EXPLAINERS[method].title if method in EXPLAINERS else method
