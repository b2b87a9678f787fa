"""Pulling: what is refused, in which words and how soon; and what works without a network."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medssl.backbones.backbone import Backbone
from medssl.bundle.manifest import manifest_of
from medssl.images.read import read_image
from tests.conftest import sample
from tests.hub.conftest import READ, Failed

HEAD = "me/medssl-shapes-tiny-dinov2"
SOON = 15


@pytest.fixture(scope="module")
def image(tiny_data):
    return str(sample(tiny_data["shapes"], "stripes"))


def with_config(files, config):
    """The files of a head with another config, and the manifest that its publisher would write."""
    own = ("model.safetensors", "metrics.json", "case_space.safetensors")
    listed = {name: files[name] for name in own if name in files}
    listed["config.json"] = json.dumps(config).encode()
    return {**files, **listed, "manifest.json": manifest_of(listed).encode()}


@pytest.fixture(scope="module")
def refused(published, hub):
    """Repos that cannot be loaded, each for its own reason."""
    files = hub.repos["model", HEAD].files
    config = json.loads(files["config.json"])

    def put(name, change, **settings):
        hub.add("model", f"lab/{name}", with_config(files, {**config, **change}), **settings)

    put("unread", {})
    put("gated", {}, gated=True)
    put("secret", {}, private=True)
    put("newer", {"schema_version": 3, "kind": "quantum", "surprise": 1})
    put("alone", {"published": {}})
    put("lost", {"published": {"cases": {"repo_id": "lab/gone", "revision": "1" * 40}}})
    put("bodiless", {"backbone": {**config["backbone"], "id": "lab/gone"}})
    put("labels", {"labels": ["dots", "plain", "waves"]})
    hub.add("model", "lab/other", {"README.md": b"# not a head"})
    hub.add("model", "lab/broken", {"config.json": b"{"})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"place": "lab/nothing"}, "no 'lab/nothing' on the Hub, or your token may not read it"),
        ({"place": "lab/nothing", "token": None}, "no 'lab/nothing' on the Hub that can be read without a token"),
        ({"place": "lab/secret", "token": None}, "if it is private, set HF_TOKEN"),
        ({"place": "lab/secret", "token": READ}, "or your token may not read it"),
        ({"place": "lab/gated", "token": None}, "is gated. Ask for access at .*lab/gated"),
        ({"place": "lab/gated", "token": READ}, "is gated. Ask for access at .*lab/gated"),
        ({"place": HEAD, "token": "hf_wrong"}, r"refuses the token .*\(401\)"),
        ({"place": HEAD, "revision": "v9"}, "has no revision 'v9'"),
        ({"place": "lab/newer"}, "schema_version 3; this medssl reads 1 and 2"),
        ({"place": "lab/alone"}, "a head without a bundle"),
        ({"place": "lab/lost"}, "no 'lab/gone'"),
        ({"place": "lab/labels"}, "the cases' labels are"),
        ({"place": "lab/other"}, "holds no config.json"),
        ({"place": "lab/broken"}, "cannot be read as JSON"),
        ({"place": "a--b/c..d"}, "no name that the Hub allows"),
    ],
)
def test_each_refusal_has_its_own_words_and_comes_soon(refused, reader, settings, words):
    with pytest.raises(Failed, match=words) as failed:
        reader.do("load", **settings)
    assert failed.value.kind == "BundleError" and failed.value.seconds < SOON
    assert failed.value.text.endswith(".") and "\n" not in failed.value.text


def flipped(data: bytes, tenths: int = 9) -> bytes:
    """The same bytes with one bit changed, at so many tenths of them."""
    at = len(data) * tenths // 10
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def flipped_picture(data: bytes) -> bytes:
    """A parquet file with one bit changed where its pictures lie; its end is an index that holds no case."""
    return flipped(data, 3)


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json", "config.json", "manifest.json"])
def test_a_flipped_bit_in_a_published_head_is_refused(published, hub, reader, name):
    files = hub.repos["model", HEAD].files
    repo_id = f"lab/flipped-{name.replace('.', '-')}"
    hub.add("model", repo_id, {**files, name: flipped(files[name])})
    with pytest.raises(Failed, match=rf"{name}|manifest") as failed:
        reader.do("load", place=repo_id)
    assert failed.value.kind == "BundleError" and "accept" not in failed.value.text


def relabeled(data: bytes) -> bytes:
    """A parquet file of cases with the first case's label changed: well formed, and another answer."""
    table = pq.read_table(io.BytesIO(data))
    labels = table.column("label").to_pylist()
    column = pa.array([(labels[0] + 1) % 3, *labels[1:]], table.schema.field("label").type)
    out = io.BytesIO()
    pq.write_table(table.set_column(table.column_names.index("label"), table.schema.field("label"), column), out)
    return out.getvalue()


@pytest.mark.parametrize("damage", [flipped_picture, relabeled])
def test_cases_that_are_not_those_published_are_refused(published, hub, reader, damage):
    cases = hub.repos["dataset", f"{HEAD}-cases"].files
    files, name = hub.repos["model", HEAD].files, f"lab/{damage.__name__.replace('_', '-')}"
    part = next(file for file in cases if file.startswith("data/train"))
    hub.add("dataset", f"{name}-cases", {**cases, part: damage(cases[part])})
    config = json.loads(files["config.json"])
    config["published"]["cases"] |= {"repo_id": f"{name}-cases", "revision": "main"}
    hub.add("model", name, with_config(files, config))
    with pytest.raises(Failed, match="not those that it was published with|cannot be read|do not fit") as failed:
        reader.do("load", place=name)
    assert failed.value.kind == "BundleError"


def test_an_edited_card_on_the_hub_is_no_damage(published, hub, reader):
    files = hub.repos["model", HEAD].files
    hub.add("model", "lab/own-card", {**files, "README.md": b"# My own card\n"})
    assert reader.do("load", place="lab/own-card") == "own-card"


def test_a_backbone_that_is_not_there_or_not_the_one(refused, reader, encoders):
    with pytest.raises(Failed, match="no 'lab/gone'.*on the Hub") as failed:
        reader.do("load", place="lab/bodiless")
    assert failed.value.kind == "BackboneError"
    with pytest.raises(Failed, match="fitted on a backbone with id 'me/.*has 'lab/random-dinov2'") as failed:
        reader.do("load", place=HEAD, backbone=encoders[0])
    assert failed.value.kind == "BundleError"


def test_a_backbone_comes_by_id_and_revision(reader, encoders, image):
    repo_id, commits, folders = encoders
    for commit, folder in zip(commits, folders, strict=True):
        found = reader.do("encode", place=repo_id, image=image, revision=commit)
        plain = Backbone.from_pretrained(folder, precision="fp32").encode([read_image(image)], maps=False).pool("cls")
        assert (found["id"], found["revision"]) == (repo_id, commit)
        np.testing.assert_array_equal(np.array(found["embedding"], np.float32), plain[0].numpy())
    newest = reader.do("encode", place=repo_id, image=image)
    assert newest["revision"] == commits[-1]


def test_without_a_network_the_cache_serves_and_the_rest_is_said_soon(
    published, refused, reader, offline, encoders, image
):
    online = reader.do("analyze", place=HEAD, image=image)
    encoded = reader.do("encode", place=encoders[0], image=image)
    for place in ("lab/nothing", "lab/unread"):
        with pytest.raises(Failed, match="cannot be reached and .* not wholly in the cache") as failed:
            offline.do("load", place=place)
        assert failed.value.kind == "BundleError" and failed.value.seconds < SOON
    with pytest.raises(Failed, match="cannot be reached") as failed:
        offline.do("encode", place="lab/nothing", image=image)
    assert failed.value.kind == "BackboneError" and failed.value.seconds < SOON
    assert offline.do("analyze", place=HEAD, image=image) == online
    assert offline.do("encode", place=encoders[0], image=image) == encoded
    assert offline.do("head", place=HEAD)["same"]
