"""Shards of embeddings: each picture in one of them, resumable, and together the same numbers as in one go."""

import json
import shutil
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medssl.backbones import embeddings
from medssl.backbones.backbone import Backbone
from medssl.backbones.embed_shard import embed_shard
from medssl.backbones.embedder import Embedder
from medssl.backbones.merged_shards import merged_vectors
from medssl.backbones.shards import ShardNumber, ShardPart, ShardRecord
from medssl.data.load import load_data
from medssl.errors import BackboneError, DataError
from medssl.images.preprocess import Preprocess
from medssl.images.read import image_id, read_image
from tests import warm
from tests.models import save_model

IMAGES, PART = 23, 4


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return Backbone.from_pretrained(save_model("dinov2", tmp_path_factory.mktemp("dinov2")), precision="fp32")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, backbone):
    """Parts of 4 pictures and batches of 3, so that 23 pictures make several of each and the last of both is short."""
    monkeypatch.setattr(embeddings, "PART_IMAGES", PART)
    monkeypatch.setattr(backbone, "batch_size", lambda _: 3)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        place = tmp_path / "data" / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40 + index, 30 + 2 * index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{index:02d}.png")
    return tmp_path / "data"


@pytest.fixture
def dataset(folder):
    return load_data(folder)


@pytest.fixture
def embedder(backbone):
    return Embedder.of(backbone, pooling="cls+mean")


def ids_of(dataset):
    return [image_id(read_image(row["image"]["path"])) for row in dataset]


def merged(place, dataset, embedder):
    return merged_vectors(place, dataset["file_name"][:], ids_of(dataset), embedder)


def embed_all(dataset, embedder, out, of=3):
    return [embed_shard(dataset, embedder, ShardNumber(number, of), out, progress=False) for number in range(1, of + 1)]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_what_is_no_shard_is_said(text):
    with pytest.raises(DataError, match="Allowed: i/n with i from 1 to n"):
        ShardNumber.parse(text)


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_each_picture_is_in_one_shard_and_the_numbers_are_those_of_one_go(dataset, embedder, tmp_path, of):
    done = embed_all(dataset, embedder, tmp_path / "out", of)
    assert sum(shard.images for shard in done) == IMAGES and max(shard.images for shard in done) < IMAGES or of == 1
    whole = embedder.vectors(dataset, tmp_path / "cache", progress=False)
    assert np.array_equal(merged(tmp_path / "out", dataset, embedder), whole)


def test_the_files_are_plain_parquet(dataset, embedder, tmp_path):
    from datasets import load_dataset

    embed_all(dataset, embedder, tmp_path / "out")
    files = sorted(map(str, (tmp_path / "out").rglob("*.parquet")))
    read = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "hf"), split="train").sort("row")
    assert read["file_name"][:] == dataset["file_name"][:] and read["id"][:] == ids_of(dataset)
    assert np.asarray(read["embedding"][:], np.float32).shape == (IMAGES, 2 * embedder.backbone.dimension)


def test_a_file_that_cannot_be_read_is_named_and_moves_no_other_number(folder, embedder, tmp_path):
    dataset = load_data(folder)
    whole = embedder.vectors(dataset, tmp_path / "cache", progress=False)
    broken = dataset["file_name"][5]
    ids = ids_of(dataset)
    (folder / broken).write_bytes(b"broken")
    done = embed_all(dataset, embedder, tmp_path / "out")
    assert [list(shard.unreadable) for shard in done] == [[], [broken], []]
    again = embed_all(dataset, embedder, tmp_path / "out")
    assert again[1].kept == again[1].images and again[1].unreadable == done[1].unreadable
    ids[5] = ""
    vectors = merged_vectors(tmp_path / "out", dataset["file_name"][:], ids, embedder)
    assert np.isnan(vectors[5]).all()
    assert np.array_equal(np.delete(vectors, 5, axis=0), np.delete(whole, 5, axis=0))


def test_what_is_there_is_not_embedded_again(dataset, embedder, tmp_path, monkeypatch, caplog):
    shard = ShardNumber(2, 3)
    first = embed_shard(dataset, embedder, shard, tmp_path, progress=False)
    files = sorted(first.folder.glob("*.parquet"))
    before = [path.read_bytes() for path in files]
    counted, plain = [], embedder.backbone.embed
    monkeypatch.setattr(embedder.backbone, "embed", lambda p, pooling: (counted.append(len(p)), plain(p, pooling))[1])
    again = embed_shard(dataset, embedder, shard, tmp_path, progress=False)
    assert (first.kept, again.kept, again.images, counted) == (0, 8, 8, [])
    files[0].unlink()
    damaged = bytearray(before[1])
    damaged[len(damaged) // 2] ^= 4
    files[1].write_bytes(bytes(damaged))
    third = embed_shard(dataset, embedder, shard, tmp_path, progress=False)
    assert third.kept == 0 and sum(counted) == 8 and [path.read_bytes() for path in files] == before
    assert "is damaged" in caplog.text and "It is embedded again." in caplog.text


def test_a_narrower_reading_takes_its_part_of_a_wider_one(dataset, embedder, tmp_path):
    embed_all(dataset, embedder, tmp_path)
    both, width = merged(tmp_path, dataset, embedder), embedder.backbone.dimension
    mean = merged(tmp_path, dataset, replace(embedder, pooling="mean"))
    assert np.array_equal(mean, both[:, width:])
    with pytest.raises(BackboneError, match="'cls.mean' holds no cls1"):
        merged(tmp_path, dataset, replace(embedder, pooling="cls1+cls"))


def test_another_folder_of_the_same_weights_is_the_same_backbone(dataset, embedder, backbone, tmp_path):
    embed_all(dataset, embedder, tmp_path / "out")
    moved = shutil.copytree(backbone.folder, tmp_path / "moved")
    elsewhere = Backbone.from_pretrained(moved, precision="fp32")
    assert elsewhere.id != backbone.id
    merged(tmp_path / "out", dataset, Embedder.of(elsewhere, pooling="cls+mean"))


def test_shards_of_another_precision_are_taken_and_said(dataset, embedder, tmp_path, caplog):
    embed_all(dataset, embedder, tmp_path / "out")
    other = Backbone.from_pretrained(embedder.backbone.folder, precision="bf16")
    merged(tmp_path / "out", dataset, Embedder.of(other, pooling="cls+mean"))
    assert "embedded in fp32; this machine embeds in bf16" in caplog.text


class Refused:
    """Three good shards, and what is done to them before they are merged."""

    def __init__(self, dataset, embedder, place):
        self.dataset, self.embedder, self.place = dataset, embedder, place

    def shard(self, number):
        return self.place / f"shard-{number}-of-3"

    def part(self, number, start):
        return self.shard(number) / f"rows-{start:08d}.parquet"

    def nothing(self):
        shutil.rmtree(self.place)
        self.place.mkdir()

    def a_shard_is_missing(self):
        shutil.rmtree(self.shard(2))

    def a_part_is_missing(self):
        self.part(1, 12).unlink()

    def a_shard_lies_there_twice(self):
        shutil.copytree(self.shard(3), self.place / "copy of the third")

    def a_part_lies_in_two_shards(self):
        shutil.copy(self.part(1, 0), self.part(2, 0))

    def a_part_holds_a_picture_twice(self):
        self.rewrite(lambda part: replace(part, rows=np.where(part.rows == 1, 2, part.rows)))

    def a_part_lacks_a_picture(self):
        def cut(part):
            return replace(part, rows=part.rows[:3], names=part.names[:3], ids=part.ids[:3], vectors=part.vectors[:3])

        self.rewrite(cut)

    def rewrite(self, change):
        fingerprint = ShardRecord.read(self.shard(1)).fingerprint
        change(ShardPart.read(self.part(1, 0), fingerprint)).write(self.part(1, 0), fingerprint)

    def a_part_is_damaged(self):
        self.part(3, 8).write_bytes(self.part(3, 8).read_bytes()[:-20])

    def a_record_is_damaged(self):
        (self.shard(1) / "record.json").write_text('{"schema_version": 1}')

    def a_part_is_of_other_shards(self):
        other = replace(self.embedder, pooling="mean")
        embed_shard(self.dataset, other, ShardNumber(1, 3), self.place.parent / "others", progress=False)
        shutil.copy(self.place.parent / "others" / "shard-1-of-3" / "rows-00000000.parquet", self.part(1, 0))

    def two_readings(self):
        shutil.rmtree(self.shard(2))
        embed_shard(self.dataset, replace(self.embedder, pooling="mean"), ShardNumber(2, 3), self.place, progress=False)

    def two_divisions(self):
        embed_shard(self.dataset, self.embedder, ShardNumber(1, 2), self.place, progress=False)

    def another_preprocessing(self):
        self.embedder = replace(self.embedder, preprocess=Preprocess(size=(28, 28)))

    def another_backbone(self):
        folder = save_model("dinov2", self.place.parent / "other-model", seed=1)
        self.embedder = Embedder.of(Backbone.from_pretrained(folder, precision="fp32"), pooling="cls+mean")

    def a_picture_more_in_the_data(self):
        Image.new("RGB", (50, 50)).save(self.place.parent / "data" / "a" / "99.png")
        self.dataset = load_data(self.place.parent / "data")

    def another_order(self):
        self.dataset = self.dataset.select(range(len(self.dataset) - 1, -1, -1))

    def a_picture_changed(self):
        Image.new("RGB", (50, 50)).save(self.dataset[7]["image"]["path"])


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", "holds no embedded shards. Make them: medssl embed"),
        ("a_shard_is_missing", r"lacks 1 of 3 shards: 2/3. Run medssl embed --shard 2/3"),
        ("a_part_is_missing", r"Shard 1/3 is not complete: 1 of its 2 files are missing \(rows-00000012.parquet\)"),
        ("a_shard_lies_there_twice", "Shard 3/3 lies there twice"),
        ("a_part_lies_in_two_shards", r"not of shard 2: rows-00000000.parquet. They would count twice"),
        ("a_part_holds_a_picture_twice", "The shards hold a/04.png twice"),
        ("a_part_lacks_a_picture", "lack a/06.png"),
        ("a_part_is_damaged", r"rows-00000008.parquet is damaged"),
        ("a_record_is_damaged", r"record.json does not fit: shard: "),
        ("a_part_is_of_other_shards", "belongs to other shards"),
        ("two_readings", r"not of one run: pooling 'cls\+mean' and 'mean'"),
        ("two_divisions", "not of one run: shards"),
        ("another_preprocessing", r"embedded by something else .*preprocess .*56.* and .*28"),
        ("another_backbone", "embedded by something else .*revision 'sha256:"),
        ("a_picture_more_in_the_data", "of 23 pictures, the data has 24 .*the data's a/99.png in no shard"),
        ("another_order", "the same ones, in another order"),
        ("a_picture_changed", r"^a/14.png changed since the shards were embedded"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(dataset, embedder, tmp_path, what, said):
    embed_all(dataset, embedder, tmp_path / "out")
    case = Refused(dataset, embedder, tmp_path / "out")
    getattr(case, what)()
    with pytest.raises(DataError, match=said):
        merged(case.place, case.dataset, case.embedder)


def test_a_folder_of_something_else_is_not_written_into(dataset, embedder, tmp_path):
    embed_shard(dataset, embedder, ShardNumber(1, 2), tmp_path, progress=False)
    record = json.loads((tmp_path / "shard-1-of-2" / "record.json").read_text())
    assert (record["images"], record["embedding"]["pooling"]) == (IMAGES, "cls+mean")
    with pytest.raises(DataError, match=r"pooling 'cls\+mean' and 'mean'.*Choose another folder"):
        embed_shard(dataset, replace(embedder, pooling="mean"), ShardNumber(1, 2), tmp_path, progress=False)


SLOWLY = """
import sys, time
from medssl.backbones import embeddings
from medssl.backbones.backbone import Backbone
from medssl.backbones.embed_shard import embed_shard
from medssl.backbones.embedder import Embedder
from medssl.backbones.shards import ShardNumber
from medssl.data.load import load_data
embeddings.PART_IMAGES = 4
backbone = Backbone.from_pretrained(sys.argv[1], precision="fp32")
backbone.batch_size = lambda _: 3
plain = backbone.embed
backbone.embed = lambda *a: (time.sleep(0.2), plain(*a))[1]
print("ready", flush=True)
embed_shard(load_data(sys.argv[2]), Embedder.of(backbone, pooling="cls+mean"), ShardNumber(1, 1), sys.argv[3], False)
"""


def test_a_killed_run_loses_one_part_at_most(folder, dataset, embedder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = ["-c", SLOWLY, embedder.backbone.folder, folder, out]
    for wanted in (1, 3):
        process = warm.start(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        deadline = time.monotonic() + 60
        while len(list(out.rglob("*.parquet"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.wait()
        process.stdout.close()
        assert wanted <= len(list(out.rglob("*.parquet"))) < 6, "killed in the middle"
    kept = len(list(out.rglob("*.parquet")))
    counted, plain = [], embedder.backbone.embed
    monkeypatch.setattr(embedder.backbone, "embed", lambda p, pooling: (counted.append(len(p)), plain(p, pooling))[1])
    done = embed_shard(dataset, embedder, ShardNumber(1, 1), out, progress=False)
    assert (done.kept, sum(counted)) == (PART * kept, IMAGES - PART * kept)
    whole = embedder.vectors(dataset, tmp_path / "cache", progress=False)
    assert np.array_equal(merged(out, dataset, embedder), whole)
