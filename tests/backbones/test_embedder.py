import numpy as np
import pytest
import torch

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.backbones.embeddings import embed, fingerprint
from medssl.data.load import load_data, read_record
from medssl.errors import BackboneError
from medssl.images.preprocess import Preprocess


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return Backbone.from_pretrained(tiny_backbone, precision="fp32")


def test_it_is_the_three_values_passed_on(backbone, tiny_data, tmp_path):
    dataset = load_data(tiny_data["tints"]).select(range(5))
    embedder = Embedder(backbone, backbone.preprocess, "mean")
    one = embedder.embed(dataset, tmp_path, progress=False)
    two = embed(dataset, backbone, backbone.preprocess, "mean", tmp_path, progress=False)
    np.testing.assert_array_equal(one["embedding"][:], two["embedding"][:])
    assert embedder.fingerprint(dataset) == fingerprint(dataset, backbone, backbone.preprocess, "mean")
    images = [read_record(record) for record in dataset]
    np.testing.assert_allclose(embedder.embed_images(images), one["embedding"][:], atol=1e-5)
    np.testing.assert_allclose(embedder.encode(images).pool("mean").numpy(), one["embedding"][:], atol=1e-5)
    pixels = torch.zeros(2, 3, *backbone.preprocess.size)
    assert embedder.embed_pixels(pixels).shape == (2, embedder.dimension)
    tokens = embedder.patch_tokens(dataset, cache_dir=tmp_path, progress=False)[None]
    np.testing.assert_allclose(tokens.astype(np.float32).mean(axis=1), one["embedding"][:], atol=1e-2)


def test_defaults_are_the_backbones_own(backbone):
    embedder = Embedder.of(backbone)
    assert (embedder.preprocess, embedder.pooling) == (backbone.preprocess, backbone.default_pooling)
    facts = embedder.describe()
    assert facts == {**backbone.describe(), "pooling": "cls", "preprocess": backbone.preprocess.to_dict()}


def test_what_cannot_be_embedded_is_refused_at_once(backbone):
    stride = backbone.stride
    with pytest.raises(BackboneError, match=f"multiples of {stride}, such as {3 * stride}x{2 * stride}"):
        Embedder.of(backbone, Preprocess(size=(3 * stride + 1, 2 * stride)))
    with pytest.raises(BackboneError, match="pooling"):
        Embedder.of(backbone, pooling="max")
