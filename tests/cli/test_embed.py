"""`medssl embed` then `medssl build --embedded`, as other processes; shards of ranks."""

import json
import os

import pytest

from medssl.cli import build
from medssl.cli.embed import shard_of_rank
from tests import warm
from tests.conftest import UNCHOSEN


def medssl(*arguments, run=warm.run, **environment):
    return run(["-m", "medssl.cli", *arguments], env={**os.environ, **environment})


def test_shards_then_a_build_of_them(tiny_data, tiny_backbone, tmp_path):
    what = ["--data", tiny_data["tints"], "--task", "tints", "--backbone", tiny_backbone]
    first = medssl("embed", *what, "--shard", "1/2", "--out", tmp_path / "shards", run=warm.run_fresh)
    assert first.returncode == 0, first.stderr
    assert "Shard 1/2: 60 pictures" in first.stdout and "shard 1/2" in first.stderr
    chosen = ["--head", UNCHOSEN["head"], "--no-explainer-check", "--quiet", "--cache", tmp_path / "cache"]
    built = ["build", *what, *chosen, "--embedded", tmp_path / "shards", "--out", tmp_path / "bundle"]
    early = medssl(*built)
    assert early.returncode == 2 and "lacks 1 of 2 shards: 2/2" in early.stderr and "Traceback" not in early.stderr
    second = medssl("embed", *what, "--quiet", "--out", tmp_path / "shards", RANK="1", WORLD_SIZE="2", LOCAL_RANK="0")
    assert second.returncode == 0 and "Shard 2/2: 0 pictures" in second.stdout, second.stderr
    done = medssl(*built)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "bundle" / "metrics.json").read_text())["reading_choice"]["asked"] == "auto"
    assert not (tmp_path / "cache" / "embeddings").exists()


def test_the_shard_of_a_rank():
    assert shard_of_rank({}) == "1/1" and shard_of_rank({"RANK": "3", "WORLD_SIZE": "8"}) == "4/8"


def test_embeddings_of_the_frozen_backbone_do_not_go_with_tuning(capsys):
    with pytest.raises(SystemExit):
        build.parse(
            ["--data", "d", "--task", "t", "--backbone", "b", "--out", "o", "--embedded", "e", "--finetune", "lora"]
        )
    assert "Give one of the two" in capsys.readouterr().err
