"""The benchmark of search: every engine at every size, with recall against numpy."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"))

import machine  # noqa: E402
import search_speed  # noqa: E402


def test_engines_side_by_side(capsys):
    parser = argparse.ArgumentParser()
    search_speed.add_arguments(parser)
    given = "--cases 60 200 --start 50 --dimension 12 --queries 4 --rounds 1 --memory-up-to 60".split()
    figures = search_speed.run(parser.parse_args(given))
    assert json.loads(json.dumps(figures)) == figures
    rows = {(row["cases"], row["engine"]): row for row in figures["search"]}
    assert set(rows) == {(60, "memory"), (60, "embedded"), (60, "numpy"), (200, "embedded"), (200, "numpy")}
    assert all(row["recall"] == 1 and 0 < row["p50_ms"] <= row["p95_ms"] for row in rows.values())
    assert rows[200, "embedded"]["disk_mib"] > 0 and rows[200, "embedded"]["open_s"] > 0
    assert "| 200 | embedded |" in capsys.readouterr().out


def test_a_machine_is_named_with_its_versions():
    found = machine.describe()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["qdrant-edge-py"] in machine.line(found) and found["processors"] >= 1
