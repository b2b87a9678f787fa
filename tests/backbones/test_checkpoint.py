"""A stranger's backbone runs no code: no auto_map, no pickles, no kernels fetched from elsewhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from medssl.backbones import Backbone
from medssl.errors import BackboneError


@pytest.fixture
def folder(tiny_backbone, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_backbone, tmp_path / "backbone"))


def change(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_code_of_its_own_is_never_run(folder, tmp_path, monkeypatch):
    (folder / "evil.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import Dinov2Model as Evil\n"
    )
    change(folder, auto_map={"AutoModel": "evil.Evil"})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(BackboneError, match="brings code of its own.*never run"):
        Backbone.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_unknown_attention_kernels_are_refused(folder, name):
    change(folder, **{name: "somebody/evil-kernel"})
    with pytest.raises(BackboneError, match="attention kernel 'somebody/evil-kernel'.*Allowed: eager, sdpa"):
        Backbone.from_pretrained(folder)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="are a pickle.*safetensors"):
        Backbone.from_pretrained(folder)


@pytest.mark.parametrize("text", ["[]", "3", '"x"'])
def test_a_config_that_is_no_object_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(BackboneError):
        Backbone.from_pretrained(folder)
