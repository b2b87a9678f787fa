"""The parts of the page that show an answer, in their places. A new one is a file here and an entry below."""

from medssl.web.panels.case_map import CaseMapPanel
from medssl.web.panels.cases import CasesPanel
from medssl.web.panels.chooser import ChooserPanel
from medssl.web.panels.curate import CuratePanel
from medssl.web.panels.figures import FiguresPanel
from medssl.web.panels.many import ManyPanel
from medssl.web.panels.panel import Panel
from medssl.web.panels.report import ReportPanel
from medssl.web.panels.verdict import VerdictPanel
from medssl.web.panels.where import WherePanel

LEFT: tuple[type[Panel], ...] = (ChooserPanel,)  # under the preview
ABOVE: tuple[type[Panel], ...] = (ManyPanel, VerdictPanel)
BESIDE: tuple[type[Panel], ...] = (WherePanel, CasesPanel)  # a column each, seen once there is an answer
BELOW: tuple[type[Panel], ...] = (ReportPanel, CaseMapPanel, FiguresPanel)
CURATION: tuple[type[Panel], ...] = (CuratePanel,)  # below, on a page started with --curate
