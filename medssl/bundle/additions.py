"""Confirmed new cases for a bundle's library, without fitting its head again; and taking them back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from PIL import Image

from medssl.backbones.embedder import Embedder
from medssl.bundle.analyzer import Analyzer
from medssl.bundle.bundle import Bundle, searched_cases
from medssl.bundle.cards.additions import with_additions
from medssl.bundle.storage import Contents, change_contents
from medssl.data.groups import group_key
from medssl.data.load import load_data, read_record
from medssl.errors import BundleError, ImageError
from medssl.images import thumbnails
from medssl.images.read import image_id
from medssl.library.case_map import MAP_COLUMNS, place_cases
from medssl.library.library import embedding_matrix
from medssl.library.space import CaseSpace

SEARCHED = "train"  # the split that a library holds
SHOWN_REFUSALS = 5


@dataclass(frozen=True)
class NewCase:
    """A picture with its confirmed label, embedded and not yet a case; `name` is what messages call it.

    `patches [h, w, D]` are what a bundle with regions keeps of it.
    """

    name: str
    id: str
    thumbnail: bytes
    label: str
    group_id: str
    source: str
    embedding: np.ndarray
    patches: np.ndarray | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a picture does not enter the library."""

    name: str
    reason: str


@dataclass(frozen=True)
class Added:
    """What an addition did: its id (for `undo_addition`), the new cases' ids, what was refused, the bundle as it is."""

    id: str
    cases: list[str]
    refused: list[Refusal]
    bundle: Bundle


def add_cases(
    path: str | Path,
    data: str | Path,
    skip_refused: bool = False,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    bundle: Bundle | None = None,
) -> Added:
    """Add the labelled images of a folder or Hub data set to the library of a bundle folder.

    Refused are pictures that the bundle has (equal pixels), of groups of its validation or test split, of another
    split than train, twice in the data, or unreadable. One refusal refuses all, unless `skip_refused`. Head and figures
    stay; metrics and card say that the figures were measured before. `bundle` may hand in what the folder holds.
    Written whole or not at all. Raises BundleError, DataError.
    """
    bundle = bundle or Bundle.load(path)
    dataset = load_data(data, labels=bundle.labels, all_present=False)
    new, unreadable = embed_new(bundle, dataset, cache_dir, progress)
    return add_new(path, bundle, new, Path(str(data)).name, skip_refused, unreadable)


def embed_new(
    bundle: Bundle, dataset: Dataset, cache_dir: str | Path | None, progress: bool
) -> tuple[list[NewCase], list[Refusal]]:
    """The readable rows of a loaded data set as new cases, and the others."""
    pictures, refused = [], []
    for row, (name, split) in enumerate(zip(dataset["file_name"][:], dataset["split"][:], strict=True)):
        if split not in ("", SEARCHED):
            refused.append(Refusal(name, f"its split is {split}; only training images enter a library"))
            continue
        try:
            image = read_record(dataset[row])
        except ImageError as error:
            refused.append(Refusal(name, str(error)))
            continue
        pictures.append((row, name, image_id(image), thumbnails.thumbnail(image), patches_of(bundle, image)))
    if not pictures:
        return [], refused
    embedder = Embedder(bundle.backbone, bundle.head.preprocess, bundle.head.pooling)
    kept = dataset.select([row for row, *_ in pictures])
    vectors = embedding_matrix(embedder.embed(kept, cache_dir, progress))
    facts = kept.select_columns(["label", "group_id", "source"]).with_format(None)[:]
    new = [
        NewCase(name, identity, small, bundle.labels[label], group, source or "", vector, patches)
        for (_, name, identity, small, patches), vector, label, group, source in zip(
            pictures, vectors, facts["label"], facts["group_id"], facts["source"], strict=True
        )
    ]
    return new, refused


def patches_of(bundle: Bundle, image: Image.Image) -> np.ndarray | None:
    """The patches `[h, w, D]` of an RGB image that the bundle's regions are made of; None where it has none."""
    if bundle.regions is None:
        return None
    return bundle.encode_patches(image, bundle.regions.config.preprocess, bundle.regions.config.layer)


def add_opened(path: str | Path, opened: Analyzer, bundle: Bundle, label: str, group_id: str = "") -> Added:
    """Add one opened picture with its confirmed label; without `group_id` it is a group of its own.

    Raises BundleError as `add_cases` does, and for an unknown label.
    """
    if label not in bundle.labels:
        raise BundleError(f"There is no class {label!r}. Allowed: {', '.join(bundle.labels)}.")
    image, identity = opened.picture.image, opened.picture.id
    group = group_id.strip() or f"added-{identity}"
    small, patches = thumbnails.thumbnail(image), patches_of(bundle, image)
    case = NewCase("this image", identity, small, label, group, "", opened.embedding, patches)
    return add_new(path, bundle, [case], "one image of the page")


def add_new(
    path: str | Path,
    bundle: Bundle,
    new: Sequence[NewCase],
    data: str,
    skip_refused: bool = False,
    refused: Sequence[Refusal] = (),
) -> Added:
    """Put embedded cases into a bundle folder; see `add_cases`."""
    result: list[Added] = []

    def change(contents: Contents) -> Contents:
        if contents.head.config.to_dict() != bundle.head.config.to_dict():
            raise BundleError(f"{path} was built anew since it was loaded. Load it again, then add the cases.")
        taken, more = sort_out(contents.cases, new)
        every = [*refused, *more]
        if (every and not skip_refused) or not taken:
            raise BundleError(refusal_message(every))
        ids = [case.id for case in taken]
        addition = {
            "id": hashlib.sha256(" ".join(ids).encode()).hexdigest()[:8],
            "date": datetime.now(timezone.utc).date().isoformat(),
            "data": data,
            "cases": ids,
        }
        cases = concatenate_datasets([contents.cases, as_rows(taken, contents.cases, contents.space)])
        changed = marked(
            with_cases(contents, cases, taken),
            [*(contents.metrics.get("additions") or []), addition],
        )
        result.append(Added(addition["id"], ids, every, Bundle.of(changed, bundle.backbone)))
        return changed

    change_contents(path, change)
    return result[0]


def sort_out(cases: Dataset, new: Sequence[NewCase]) -> tuple[list[NewCase], list[Refusal]]:
    """Which new cases may enter, and why the others may not."""
    known = set(cases["id"][:])
    groups = {
        group_key(group): (group, split) for group, split in zip(cases["group_id"][:], cases["split"][:], strict=True)
    }
    taken, refused = [], []
    for given in new:
        group, split = groups.get(group_key(given.group_id), (given.group_id, SEARCHED))
        case = replace(given, group_id=group)  # as the bundle writes it
        if case.id in known:
            refused.append(Refusal(case.name, "a picture with the same pixels is in the bundle, or twice in the data"))
        elif split != SEARCHED:
            refused.append(
                Refusal(case.name, f"its group {case.group_id!r} is in the {split} split, which must stay apart")
            )
        else:
            taken.append(case)
            known.add(case.id)
    return taken, refused


def refusal_message(refused: Sequence[Refusal]) -> str:
    """Why nothing was added."""
    listed = "; ".join(f"{one.name}: {one.reason}" for one in refused[:SHOWN_REFUSALS])
    more = f"; and {len(refused) - SHOWN_REFUSALS} more" if len(refused) > SHOWN_REFUSALS else ""
    many = f"{len(refused)} of the pictures cannot be cases ({listed}{more})" if refused else "there is no picture"
    return f"Nothing was added: {many}. Leave them out, or add the others only (--skip-refused)."


def as_rows(new: Sequence[NewCase], cases: Dataset, space: CaseSpace | None = None) -> Dataset:
    """New cases as rows of a bundle's table of cases, placed on its map where it has one."""
    names = cases.features["label"].names
    columns: dict[str, list] = {
        "id": [case.id for case in new],
        "image": [{"bytes": case.thumbnail, "path": None} for case in new],
        "label": [names.index(case.label) for case in new],
        "split": [SEARCHED] * len(new),
        "group_id": [case.group_id for case in new],
        "source": [case.source for case in new],
        "embedding": [case.embedding.astype(np.float32).tolist() for case in new],
    }
    if set(MAP_COLUMNS) <= set(cases.column_names):
        points = place_cases(cases, np.stack([case.embedding for case in new]), space)
        columns |= {name: points[:, axis].tolist() for axis, name in enumerate(MAP_COLUMNS)}
    unknown = {name: [None] * len(new) for name in cases.column_names if name not in columns}
    return Dataset.from_dict({**columns, **unknown}, features=cases.features)


def undo_addition(path: str | Path, identity: str, bundle: Bundle | None = None) -> Bundle:
    """Take an addition's cases, or one added case, out of a bundle folder again. Returns the bundle as it is.

    Raises BundleError for an id that no addition has: the cases of the build are not taken out.
    """
    bundle, result = bundle or Bundle.load(path), []

    def change(contents: Contents) -> Contents:
        additions = contents.metrics.get("additions") or []
        gone = gone_with(additions, identity)
        if not gone:
            known = ", ".join(one["id"] for one in additions) or "none"
            raise BundleError(f"There is no addition or added case {identity!r} in {path}. Additions: {known}.")
        left = [{**one, "cases": [case for case in one["cases"] if case not in gone]} for one in additions]
        rows = [row for row, case in enumerate(contents.cases["id"][:]) if case not in gone]
        fewer = with_cases(contents, contents.cases.select(rows))
        changed = marked(fewer, [one for one in left if one["cases"]])
        result.append(Bundle.of(changed, bundle.backbone))
        return changed

    change_contents(path, change)
    return result[0]


def with_cases(contents: Contents, cases: Dataset, taken: Sequence[NewCase] = ()) -> Contents:
    """The contents with another table of cases, of which `taken` are new, and the regions that belong to them."""
    if contents.regions is None:
        return replace(contents, cases=cases)
    row_of = {case: row for row, case in enumerate(searched_cases(contents.cases)["id"][:])}
    ids = searched_cases(cases)["id"][:]
    rows = [row_of[case] for case in ids if case in row_of]
    regions = contents.regions.regrown(rows, [case.patches for case in taken], ids)
    return replace(contents, cases=cases, regions=regions)


def gone_with(additions: Sequence[Mapping], identity: str) -> set[str]:
    """The added cases that go with the id of an addition or of one of them."""
    return {case for one in additions for case in one["cases"] if identity in (one["id"], case)}


def marked(contents: Contents, additions: list[dict]) -> Contents:
    """The contents with these additions noted in metrics and card."""
    metrics = {name: value for name, value in contents.metrics.items() if name != "additions"}
    metrics |= {"additions": additions} if additions else {}
    return replace(contents, metrics=metrics, card=with_additions(contents.card, metrics))
