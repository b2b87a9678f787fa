"""The untrained control is fixed by its seed."""

import numpy as np
import torch

from medssl.backbones.backbone import Backbone
from medssl.backbones.embeddings import fingerprint
from medssl.data.load import load_data
from medssl.study.random_twin import open_backbone, public_id, random_twin


def test_a_random_twin_is_fixed_by_its_seed(tiny_backbone, tiny_data):
    state = torch.get_rng_state()
    first, again, other = (random_twin(tiny_backbone, seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    trained = Backbone.from_pretrained(tiny_backbone)
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    vectors = [twin.embed(pixels, "cls") for twin in (first, again, other, trained)]
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2]) and not np.allclose(vectors[0], vectors[3])
    assert first.preprocess == trained.preprocess and first.revision.startswith("random:seed=1:sha256:")
    dataset = load_data(tiny_data["shapes"]).select(range(3))
    prints = [fingerprint(dataset, twin, twin.preprocess, "cls") for twin in (first, again, other)]
    assert prints[0] == prints[1] != prints[2]
    named = open_backbone(f"random:{tiny_backbone}", 2)
    assert named.revision == other.revision and public_id(named.id) == "random:tiny-dinov2"
