"""`scripts/benchmark.py`: a table goes into a page between the topic's markers, and figures into a file."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts")]

import benchmark  # noqa: E402

PAGE = "a\n<!-- search: begin -->\n{}\n<!-- search: end -->\nb\n<!-- embed: begin -->\nkept\n<!-- embed: end -->\n"


def test_a_table_stands_in_its_page_with_the_machine_and_its_figures_in_a_file(tmp_path, monkeypatch):
    def run(arguments):
        print(f"| new \\1 |{arguments.cases}")
        return {"cases": arguments.cases}

    page, out = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text(PAGE.format("old"))
    search = SimpleNamespace(add_arguments=lambda verb: verb.add_argument("--cases", type=int), run=run)
    monkeypatch.setattr(benchmark, "BENCHMARKS", {"search": search})
    given = ["benchmark.py", "search", "--cases", "7", "--page", str(page), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", given)
    assert benchmark.main() == 0
    found = json.loads(out.read_text())
    assert found["cases"] == 7
    assert page.read_text() == PAGE.format(f"\n{benchmark.machine.line(found['machine'])}.\n\n| new \\1 |7\n")


def test_the_page_of_figures_has_a_place_for_every_speed():
    text = (ROOT / "docs" / "performance.md").read_text("utf-8")
    for topic in ("embed", "search", "start", "explain", "visitors"):
        assert f"<!-- {topic}: begin -->" in text and f"<!-- {topic}: end -->" in text
