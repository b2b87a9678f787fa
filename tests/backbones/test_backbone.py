import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from medssl.backbones.backbone import Backbone, captured
from medssl.backbones.precision import native_bf16
from medssl.backbones.registry import BACKBONES
from medssl.errors import BackboneError
from medssl.images.preprocess import Preprocess
from tests.models import FAMILIES, PREFIX_TOKENS, save_model

REQUIRED = (
    "dinov2-small dinov2-base dinov2-large dinov2-giant dinov2-registers-small dinov2-registers-base dino-vits16 "
    "mae-base vit-base deit-small resnet-50 convnext-tiny swin-tiny"
).split()


def pictures(count: int, size=(70, 50)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: save_model(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def test_registry_has_what_the_design_names_with_every_fact():
    assert set(REQUIRED) <= set(BACKBONES)
    for name, spec in BACKBONES.items():
        assert spec.name == name
        assert (spec.hub_id or "").count("/") == 1 or (spec.folder / "model.safetensors").is_file()
        assert spec.supervision in ("self-supervised", "supervised")
        assert spec.method and spec.license and spec.dimension > 0 and spec.parameters > 10**6
    groups = {spec.supervision for spec in BACKBONES.values()}
    assert groups == {"self-supervised", "supervised"}


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_equals_a_plain_forward_token_by_token(family, folders):
    backbone = Backbone.from_pretrained(folders[family], precision="fp32")
    preprocess = Preprocess(size=(64, 64) if "dino" not in family else (56, 56))
    pixels = backbone.pixels(pictures(3), preprocess)
    encoding = backbone.encode(pictures(3), preprocess)
    model = AutoModel.from_pretrained(folders[family]).eval()
    extra = {"noise": torch.arange(16).expand(3, -1)} if family == "mae" else {}
    if family == "mae":
        model.config.mask_ratio = 0.0
    with torch.no_grad():
        hidden = model(pixels, **extra).last_hidden_state
    if hidden.ndim == 4:
        assert encoding.cls is None
        torch.testing.assert_close(encoding.patches, hidden.permute(0, 2, 3, 1))
        return
    prefix = PREFIX_TOKENS[family]
    assert backbone.prefix == prefix
    rows, columns = encoding.patches.shape[1:3]
    assert rows * columns + prefix == hidden.shape[1]
    for row in range(rows):
        for column in range(columns):
            torch.testing.assert_close(encoding.patches[:, row, column], hidden[:, prefix + row * columns + column])
    if prefix:
        torch.testing.assert_close(encoding.cls, hidden[:, 0])


@pytest.mark.parametrize("family", ["dinov2", "dinov2-registers", "vit", "deit", "mae", "swin", "resnet", "convnext"])
def test_non_square_input_gives_the_grid_of_rows_by_columns(family, folders):
    backbone = Backbone.from_pretrained(folders[family], precision="fp32")
    step = 14 if "dino" in family else 32
    size = (step * 2, step * 4)
    encoding = backbone.encode(pictures(1), Preprocess(size=size))
    stride = size[0] // encoding.patches.shape[1]
    assert encoding.patches.shape[1:3] == (size[0] // stride, size[1] // stride)
    assert encoding.patches.shape[2] == 2 * encoding.patches.shape[1]
    assert encoding.maps.shape[:3] == encoding.patches.shape[:3]


def test_patches_lie_where_the_picture_changed(folders):
    backbone = Backbone.from_pretrained(folders["vit"], precision="fp32")
    plain = np.zeros((64, 128, 3), np.uint8)
    changed = plain.copy()
    changed[16:32, 96:112] = 255
    preprocess = Preprocess(size=(64, 128), interpolation="nearest")
    first, second = (backbone.encode([Image.fromarray(x)], preprocess).patches[0] for x in (plain, changed))
    moved = (first - second).norm(dim=-1)
    assert divmod(int(moved.argmax()), moved.shape[1]) == (1, 6)


@pytest.mark.parametrize("family", ["dinov2", "dinov2-registers", "vit", "deit"])
def test_maps_are_the_last_blocks_first_layer_norm(family, folders):
    backbone = Backbone.from_pretrained(folders[family], precision="fp32")
    pixels = backbone.pixels(pictures(2))
    name = "norm1" if "dino" in family else "layernorm_before"
    layers = [module for key, module in backbone.model.named_modules() if key.endswith(f"1.{name}")]
    with captured(layers[-1]) as kept, torch.no_grad():
        encoding = backbone.forward(pixels, maps=True)
    expected = kept[0][:, PREFIX_TOKENS[family] :]
    torch.testing.assert_close(encoding.maps.flatten(1, 2), expected)


def test_hooks_are_gone_also_after_a_failure(folders):
    backbone = Backbone.from_pretrained(folders["vit"])
    backbone.encode(pictures(1))
    with pytest.raises(RuntimeError), captured(backbone.map_layer):
        raise RuntimeError("on purpose")
    with pytest.raises(ValueError):
        backbone.forward(torch.zeros(1, 5, 64, 64), maps=True)
    assert all(not module._forward_hooks for module in backbone.model.modules())


def test_poolings(folders):
    backbone = Backbone.from_pretrained(folders["deit"])
    encoding = backbone.encode(pictures(2))
    mean = encoding.patches.flatten(1, 2).mean(1)
    torch.testing.assert_close(encoding.pool("mean"), mean)
    torch.testing.assert_close(encoding.pool("cls+mean"), torch.cat([encoding.cls, mean], 1))
    assert backbone.embedding_dim("cls+mean") == 2 * backbone.embedding_dim("cls") == 96
    with pytest.raises(BackboneError, match="Unknown pooling 'max'.*cls, mean"):
        encoding.pool("max")
    convolutional = Backbone.from_pretrained(folders["resnet"])
    assert convolutional.default_pooling == "mean"
    with pytest.raises(BackboneError, match="no.* none. Use pooling 'mean'|needs a CLS"):
        convolutional.encode(pictures(1)).pool("cls")


@pytest.mark.parametrize("family", FAMILIES)
def test_bulk_precision_stays_close_to_fp32(family, folders):
    exact = Backbone.from_pretrained(folders[family], precision="fp32")
    fast = Backbone.from_pretrained(folders[family], precision="bf16")
    pixels = exact.pixels(pictures(4))
    pooling = exact.default_pooling
    a, b = exact.embed(pixels, pooling), fast.embed(pixels, pooling)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.99
    assert fast.precision == "bf16" and a.dtype == b.dtype == np.float32
    torch.testing.assert_close(fast.encode(pictures(4)).pool(pooling), exact.encode(pictures(4)).pool(pooling))


@pytest.mark.parametrize("family", ["dinov2", "dinov2-registers", "vit", "deit", "mae"])
def test_leaving_out_the_last_mlp_of_other_tokens_changes_no_cls(family, folders):
    fast = Backbone.from_pretrained(folders[family], precision="bf16")
    pixels = fast.pixels(pictures(4))
    assert fast._last_mlp_norm is not None
    with torch.no_grad():
        whole = fast._hidden(pixels, fast._low_precision_model)[:, 0].float().numpy()
    np.testing.assert_allclose(fast.embed(pixels, "cls"), whole, atol=0.05, rtol=0.05)
    assert all(not module._forward_hooks for module in fast._low_precision_model.modules())
    exact = Backbone.from_pretrained(folders[family], precision="fp32")
    means = [b.embed(pixels, "mean") for b in (fast, exact)]
    cosine = (means[0] * means[1]).sum(1) / np.linalg.norm(means[0], axis=1) / np.linalg.norm(means[1], axis=1)
    assert cosine.min() > 0.99


def test_precision_auto_follows_the_device(folders):
    backbone = Backbone.from_pretrained(folders["vit"])
    assert backbone.precision == ("bf16" if native_bf16(backbone.device) else "fp32")
    with pytest.raises(BackboneError, match="Unknown precision 'int3'.*fp32"):
        Backbone.from_pretrained(folders["vit"], precision="int3")


def test_masked_image_checkpoint_keeps_every_patch_in_order(folders):
    backbone = Backbone.from_pretrained(folders["mae"])
    one, two = backbone.encode(pictures(2)), backbone.encode(pictures(2))
    assert one.patches.shape[1:3] == (4, 4)
    assert torch.equal(one.patches, two.patches)


def test_folder_revision_changes_with_the_weights(folders, tmp_path):
    other = save_model("vit", tmp_path, seed=1)
    first, second = Backbone.from_pretrained(folders["vit"]), Backbone.from_pretrained(other)
    assert first.revision.startswith("sha256:") and first.revision != second.revision
    assert first.revision == Backbone.from_pretrained(folders["vit"]).revision


def test_unknown_names_and_broken_folders_are_refused(tmp_path, folders):
    with pytest.raises(BackboneError, match="No backbone 'dinov3'.*dinov2-small"):
        Backbone.from_pretrained("dinov3")
    with pytest.raises(BackboneError, match="No backbone"):
        Backbone.from_pretrained(tmp_path / "nothing" / "here")
    with pytest.raises(BackboneError, match="could not be loaded"):
        Backbone.from_pretrained(tmp_path)
    from safetensors.torch import load_file, save_file

    incomplete = save_model("vit", tmp_path / "incomplete")
    tensors = load_file(incomplete / "model.safetensors")
    removed = next(name for name in tensors if "layer" in name)
    tensors.pop(removed)
    save_file(tensors, incomplete / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="lacks 1 of the weights"):
        Backbone.from_pretrained(incomplete)


def test_size_that_is_no_multiple_of_the_patch_is_refused(folders):
    backbone = Backbone.from_pretrained(folders["vit"])
    with pytest.raises(BackboneError, match="multiples of 16"):
        backbone.encode(pictures(1), Preprocess(size=(60, 64)))
