"""Options that several verbs share mean one thing in all of them; --quiet is quiet."""

import os
import subprocess
import sys

import pytest

from medssl.cli import audit, build, evaluate, pretrain, study
from medssl.cli.options import labels
from medssl.cli.run import named_folders
from medssl.errors import DataError
from tests.conftest import ROOT

SHARED = {
    "--data": (audit, build, evaluate),
    "--data-revision": (audit, build),
    "--labels": (audit, build),
    "--cache": (audit, build, evaluate, study),
    "--seed": (audit, build, evaluate, pretrain, study),
    "--quiet": (audit, build, evaluate, pretrain, study),
}


def described(verb, capsys):
    """What --help says of each option, by its name."""
    with pytest.raises(SystemExit):
        verb.main(["--help"])
    listed = capsys.readouterr().out.split("options:")[1]
    entries = [" ".join(entry.split()) for entry in listed.split("\n  -")]
    return {"-" + entry.split()[0]: entry for entry in entries if entry}


def test_an_option_is_worded_once(capsys):
    said = {verb.__name__: described(verb, capsys) for verb in (audit, build, evaluate, pretrain, study)}
    for name, verbs in SHARED.items():
        assert len({said[verb.__name__][name] for verb in verbs}) == 1, name


@pytest.mark.parametrize("verb", [audit, build])
def test_the_old_revision_is_refused_with_both_new_names(verb, capsys):
    with pytest.raises(SystemExit):
        verb.main(["--data", "x", "--revision", "main"])
    said = capsys.readouterr().err
    assert "--data-revision" in said and "--backbone-revision" in said


def test_labels_are_separated_by_commas(capsys):
    assert labels("no tumor, glioma") == ["no tumor", "glioma"]
    with pytest.raises(SystemExit):
        audit.main(["--data", "x", "--labels", "a,,b"])
    assert "empty or a repeated label" in capsys.readouterr().err


def test_quiet_is_quiet(tiny_data, tiny_backbone, tmp_path):
    given = ["--data", tiny_data["shapes"], "--task", "shapes", "--backbone", tiny_backbone, "--out", tmp_path / "out"]
    given += ["--cache", tmp_path / "cache", "--quiet", "--head", "linear", "--no-explainer-check"]
    done = subprocess.run(
        [sys.executable, "-m", "medssl.cli", "build", *map(str, given)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0 and done.stderr == "" and "Written to" in done.stdout, done.stderr


def test_folders_of_one_name_are_refused_not_dropped():
    assert named_folders(["lung/images", "b=brain/images"], "--data") == {"images": "lung/images", "b": "brain/images"}
    with pytest.raises(DataError, match="--data lung/images brain/images needs a different name for each"):
        named_folders(["lung/images", "brain/images"], "--data")


@pytest.mark.parametrize("verb", [audit, evaluate])
def test_a_place_that_no_file_can_have_is_refused_before_the_work(verb, tmp_path, tiny_bundle_folders, tiny_data):
    given = ["--data", str(tiny_data["shapes"]), "--out", str(tmp_path / "no" / "out.json")]
    given += ["--bundle", str(tiny_bundle_folders["shapes"])] if verb is evaluate else []
    with pytest.raises(DataError, match="no file in a folder that exists"):
        verb.main(given)
