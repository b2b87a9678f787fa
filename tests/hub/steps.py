"""What a worker can do, with the real clients; all in and out is plain JSON."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import runpy
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from medssl.backbones.backbone import Backbone
from medssl.bundle.bundle import Bundle
from medssl.bundle.publish import publish_bundle
from medssl.cli import embed
from medssl.data.load import load_data
from medssl.data.stream import StreamedData, stream_data
from medssl.errors import BundleError
from medssl.heads.head import ClassificationHead
from medssl.heads.patch import load_head
from medssl.images.read import read_image
from medssl.library.library import CaseLibrary

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def token_set(token: str | None):
    """Another HF_TOKEN while inside; None for none."""
    before = os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    try:
        yield
    finally:
        os.environ.pop("HF_TOKEN", None)
        if before:
            os.environ["HF_TOKEN"] = before


def publish(place: str, namespace: str, **settings) -> dict:
    """Publish a bundle; what `publish_bundle` returned."""
    backbone = settings.get("backbone")
    bundle = Bundle.load(place, backbone=Backbone.from_pretrained(backbone) if backbone else None)
    done = publish_bundle(bundle, namespace, **settings)
    return {**asdict(done), "lines": done.lines()}


def summary(bundle: Bundle, image: str) -> dict:
    """All that an analysis says, in numbers."""
    analysis = bundle.analyze(image)
    told = analysis.to_dict()
    return {
        "prediction": told["prediction"],
        "cases": told["cases"],
        "heatmap": hashlib.sha256(analysis.explanation.heatmap.tobytes()).hexdigest(),
        "accuracy": bundle.metrics["classification"]["accuracy"],
        "thumbnails": [case.image is not None for case in analysis.cases],
    }


def analyze(place: str, image: str, revision: str | None = None) -> dict:
    """Load a bundle and analyse an image."""
    return summary(Bundle.load(place, revision=revision), image)


def lesions(place: str, image: str) -> dict:
    """What a bundle's localizer says of an image, in numbers."""
    found = Bundle.load(place).open(image).lesion_map()
    told = {**found.to_dict(), "seconds": 0}
    return {**told, "heatmap": hashlib.sha256(found.heatmap.tobytes()).hexdigest()}


def why_no_lesions(place: str, image: str) -> str:
    """Why a bundle has no lesion map."""
    try:
        Bundle.load(place).open(image).lesion_map()
    except BundleError as error:
        return str(error)
    return ""


def load(place: str, token: str | None = "hf_write", revision: str | None = None, backbone: str | None = None) -> str:
    """Load a bundle under a token. Returns its name."""
    with token_set(token):
        handed = Backbone.from_pretrained(backbone) if backbone else None
        return Bundle.load(place, backbone=handed, revision=revision).name


def head(place: str, revision: str | None = None) -> dict:
    """Load the head alone, by its class and by its kind."""
    one, two = ClassificationHead.from_pretrained(place, revision=revision), load_head(place, revision=revision)
    same = all((two.state_dict()[name] == value).all() for name, value in one.state_dict().items())
    return {"labels": one.labels, "backbone": one.backbone, "same": bool(same)}


def encode(place: str, image: str, revision: str | None = None) -> dict:
    """An image's embedding by a backbone of the Hub or a folder."""
    backbone = Backbone.from_pretrained(place, revision, precision="fp32")
    embedding = backbone.encode([read_image(image)], maps=False).pool("cls")[0]
    return {**backbone.describe(), "embedding": embedding.tolist()}


def cases(repo_id: str, folder: str, image: str) -> dict:
    """The published train cases by `load_dataset`, as a library, searched beside the folder's bundle."""
    from datasets import load_dataset

    data = load_dataset(repo_id)
    train, bundle = data["train"], Bundle.load(folder)
    vectors = train.with_format("numpy")["embedding"][:]
    query = bundle.encode(read_image(image)).pool(bundle.head.pooling)[0].numpy()
    with CaseLibrary(train, name="from-the-hub") as library:
        found = library.search(query, 10)
    return {
        "splits": {name: len(part) for name, part in data.items()},
        "type": str(np.asarray(vectors).dtype),
        "shape": list(np.asarray(vectors).shape),
        "labels": train.features["label"].names,
        "feature": str(train.features["embedding"]),
        "image": list(train[0]["image"].size),
        "found": [[case.id, case.label, case.score, case.group_id, case.source] for case in found],
        "expected": [
            [case.id, case.label, case.score, case.group_id, case.source]
            for case in bundle.library.plain.search(query, 10)
        ],
    }


def rows_of(data) -> list[list]:
    """Names, labels, groups, splits and pictures' bytes of a data set, in its order."""
    names = ("file_name", "label", "group_id", "split", "source")
    hashes = [hashlib.sha256(data[row]["image"]["bytes"]).hexdigest() for row in range(len(data))]
    return [list(cells) for cells in zip(*(data[name][:] for name in names), hashes, strict=True)]


def streamed(source: str) -> dict:
    """The rows of a Hub data set as a stream, and what then lies in the cache of downloads."""
    rows = rows_of(stream_data(source))
    stored = sum(path.stat().st_size for path in Path(os.environ["HF_HOME"]).rglob("*.parquet"))
    return {"rows": rows, "stored": stored}


def downloaded(source: str) -> list[list]:
    """The rows of a Hub data set by `load_data`."""
    return rows_of(load_data(source))


def embedded(source: str, backbone: str, out: str, stream: bool, shard: str = "1/1") -> int:
    """`medssl embed` in this process. Returns its exit code."""
    given = ["--data", source, "--task", "tones", "--backbone", backbone, "--out", out, "--shard", shard, "--quiet"]
    return embed.main([*given, *(["--stream"] if stream else [])])


OPENED: dict[str, StreamedData] = {}


def open_stream(source: str) -> int:
    """Open a stream and keep it. Returns how many rows it has."""
    OPENED[source] = stream_data(source)
    return len(OPENED[source])


def picture_of_stream(source: str, row: int) -> str:
    """A hash of a picture of a stream that is open."""
    return hashlib.sha256(OPENED[source][row]["image"]["bytes"]).hexdigest()


def script(name: str, arguments: list[str], token: str | None = "hf_write") -> dict:
    """Run a script of scripts/ with these arguments, here, as its main."""
    out, error, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = [name, *arguments]
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        with token_set(token), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
            code = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.argv = before
        sys.path.remove(str(ROOT / "scripts"))
    return {"code": code, "out": out.getvalue(), "error": error.getvalue()}
