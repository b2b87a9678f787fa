"""A bundle with a localizer on the Hub: another process has the same maps, bit for bit."""

import hashlib

import pytest

from medssl.bundle.bundle import Bundle
from tests.conftest import sample
from tests.hub.steps import lesions

HEAD = "me/medssl-discs-tiny-dinov2"


@pytest.mark.usefixtures("published")  # whose tests expect that it brings the backbone
def test_the_pulled_localizer_gives_the_same_map(
    publisher, reader, offline, hub, lesion_bundle_folder, lesion_data, tiny_backbone
):
    place = str(lesion_bundle_folder)
    published = publisher.do("publish", place=place, namespace="me", backbone=str(tiny_backbone))
    image = str(sample(lesion_data, "warm"))
    expected = lesions(place, image)
    heatmap = Bundle.load(place).open(image).lesion_map().heatmap
    assert expected["heatmap"] == hashlib.sha256(heatmap.tobytes()).hexdigest()
    assert reader.do("lesions", place=HEAD, image=image) == expected
    assert offline.do("lesions", place=HEAD, image=image) == expected, "from the cache"
    files = hub.repos["model", HEAD].files
    assert {"localizer/config.json", "localizer/model.safetensors"} <= set(files)
    assert b"/tmp" not in files["localizer/config.json"]
    again = publisher.do("publish", place=place, namespace="me", backbone=str(tiny_backbone))
    assert again["head"]["revision"] == published["head"]["revision"] and not again["head"]["changed"]


def test_a_bundle_without_one_says_so(published, reader, tiny_data):
    found = reader.do(
        "why_no_lesions", place=published["head"]["repo_id"], image=str(sample(tiny_data["shapes"], "dots"))
    )
    assert "has no localizer" in found
