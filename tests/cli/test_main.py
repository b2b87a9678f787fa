"""`medssl VERB`: help without torch, doctor's report, one version."""

import re
import subprocess
import sys

import pytest

from medssl import __version__
from medssl.cli.main import VERBS
from tests.conftest import ROOT


def medssl(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "medssl.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_version_and_verbs():
    assert medssl("--version").stdout.strip() == f"medssl {__version__}"
    said = medssl("--help").stdout
    assert all(verb in said for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"finetune", "pretrain"}))
def test_help_does_not_wait_for_torch(verb):
    code = (
        "import sys; sys.argv = ['medssl', sys.argv[1], '--help']\n"
        "from medssl.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: print('torch' in sys.modules, end.code)"
    )
    done = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip().endswith("False 0"), done.stdout[-300:] + done.stderr[-300:]


def test_doctor_says_what_gets_which_precision_and_why():
    done = medssl("doctor")
    assert done.returncode == 0, done.stderr
    lines = dict(re.split(r"\s{1,}", line, maxsplit=1) for line in done.stdout.splitlines())
    assert lines["medssl"].startswith(__version__) and lines["torch"][0].isdigit()
    assert re.match(r"(bf16|fp32), because", lines["precision"])
    assert "for this process" in lines["processor"] and "GiB" in lines["memory"]
    assert "in memory" in lines["Qdrant"]


def test_an_unknown_verb_is_a_sentence():
    done = medssl("guess")
    assert done.returncode == 2 and "invalid choice: 'guess'" in done.stderr and "Traceback" not in done.stderr
