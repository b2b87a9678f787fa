"""The parts of the page that show an answer, in their places. A new one is a file here and an entry below."""

from medssl.web.panels.cases import CasesPanel
from medssl.web.panels.figures import FiguresPanel
from medssl.web.panels.heatmap import HeatmapPanel
from medssl.web.panels.panel import Panel
from medssl.web.panels.verdict import VerdictPanel

ABOVE: tuple[type[Panel], ...] = (VerdictPanel,)
BESIDE: tuple[type[Panel], ...] = (HeatmapPanel, CasesPanel)  # a column each, seen once there is an answer
BELOW: tuple[type[Panel], ...] = (FiguresPanel,)
