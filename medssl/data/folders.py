"""The rows of class folders: class/..., split/class/..., class/split/..., class/patient/..."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medssl.data.annotations import is_annotation_file
from medssl.data.rows import SPLIT_NAMES, base_row
from medssl.errors import DataError

NO_IMAGES = {".csv", ".json", ".jsonl", ".txt", ".md", ".parquet", ".db", ".ini", ".lock", ".xlsx", ".xls", ".pdf"}
NO_IMAGES |= {".xml", ".yaml", ".yml", ".html", ".py", ".ipynb", ".zip", ".tsv", ".log", ".doc", ".docx"}
# What NAS boxes, operating systems and unpackers leave beside the images.
SYSTEM = {"@eadir", "#recycle", "@recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information"}
SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
FILLERS = {"set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "picture", "pictures"}
FILLERS |= {"photo", "photos", "split", "splits", "folder", "folders", "file", "files", "raw"}
# Numbered, these are parts of one data set (images_001, part 2), as a download in pieces leaves them.
PARTS = {"part", "batch", "chunk", "shard"}
# Sides of a split whose name does not say which, and the folds of a cross-validation.
UNCLEAR = {"holdout", "eval", "evaluation", "trainval", "development", "fold", "folds", "cv", "split", "splits"}
MASKS = {
    "mask",
    "masks",
    "segmentation",
    "segmentations",
    "annotation",
    "annotations",
    "groundtruth",
    "gt",
    "roi",
    "rois",
}
SPLIT, CONTAINER, MASK, CLASS, ODD = "split", "container", "mask", "class", "unclear split"


def words(name: str) -> set[str]:
    """The words and numbers of a folder's name, lower case."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)", " ", name).lower()
    return set(re.split(r"[\W_]+", spaced)) - {""}


def is_numbered(name: str) -> bool:
    """Whether a folder's name holds a number."""
    return any(word.isdigit() for word in words(name))


def telling(name: str) -> set[str]:
    """The words of a folder's name without numbers and without those that say nothing of its content."""
    return {word for word in words(name) if not word.isdigit()} - FILLERS


def split_of(name: str) -> str:
    """The split that a folder's name says (train_set, Test images, train_1, validation), else ""."""
    left = telling(name)
    return SPLIT_NAMES.get(next(iter(left)), "") if len(left) == 1 else ""


def kind_of(name: str) -> str:
    """What a folder is by its name: a split, a container (images, data, part 2), masks, or a class.

    An unclear split (holdout, fold 3) is one of which it cannot be told which side it is.
    """
    every, left = words(name), telling(name)
    numbered = is_numbered(name)
    if split_of(name):
        return SPLIT
    if (left and left <= UNCLEAR) or (numbered and not left and every & UNCLEAR):
        return ODD
    if every - left and left <= (PARTS if numbered else set()) and re.search(r"[a-zA-Z]", name):
        return CONTAINER
    masks = left - SPLIT_NAMES.keys()
    return MASK if masks and masks <= MASKS else CLASS


def splits_of_siblings(names: Iterable[str]) -> dict[str, str]:
    """The splits that folders side by side say together: chest_train and chest_test differ by the split alone."""
    found: dict[frozenset[str], dict[str, str]] = {}
    for name in names:
        left = telling(name)
        sides = {SPLIT_NAMES[word] for word in left if word in SPLIT_NAMES}
        if len(sides) == 1:
            found.setdefault(frozenset(left - SPLIT_NAMES.keys()), {})[name] = sides.pop()
    several = (splits for splits in found.values() if len(set(splits.values())) > 1)
    return {name: split for splits in several for name, split in splits.items()}


def unclear(folder: Path, names: Sequence[str]) -> str:
    """What is said of folders that are sides or folds of a split, nobody can tell which."""
    return (
        f"{folder} holds {', '.join(names)}: sides or folds of a split by name, no classes, and it cannot be told "
        "which is train, val or test. Name them so, or use a metadata.csv with a split column."
    )


def is_system(path: Path) -> bool:
    """Whether a file or folder is hidden or left by a system, and never data."""
    name = path.name.lower()
    return name.startswith(".") or name in SYSTEM or name in SYSTEM_FILES


@dataclass
class FolderReader:
    """Reads one data folder into `rows`, and keeps what is to be said of it in `notes`."""

    root: Path
    rows: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    groups: set[str] = field(default_factory=set)

    def read(self) -> None:
        """Read everything. Raises DataError for a structure that cannot be told."""
        for name in ("metadata.jsonl", "metadata.parquet"):
            if (self.root / name).exists():
                raise DataError(
                    f"{self.root} has a {name}, which is not read. Save it as metadata.csv with file_name,label."
                )
        self.read_level(self.root, "")
        if self.groups:
            some = ", ".join(sorted(self.groups)[:3])
            self.notes.append(
                f"The {len(self.groups)} folders inside the class folders ({some}, ...) are taken as patients: the "
                "images of one stay on one side of a split."
            )
        for what, count in sorted(self.left_out.items()):
            self.notes.append(f"Left aside: {count} {what}.")

    def inner_folders(self, folder: Path) -> list[Path]:
        """The sorted folders in a folder that may hold data."""
        inner = []
        for path in sorted(path for path in folder.iterdir() if path.is_dir()):
            if is_system(path):
                self.left_out[f"folder(s) of the system ({path.name})"] += 1
            else:
                inner.append(path)
        return inner

    def read_level(self, folder: Path, split: str) -> None:
        """Read a folder of classes, of splits, or of containers of these."""
        kinds: dict[str, list[Path]] = {SPLIT: [], CONTAINER: [], MASK: [], CLASS: [], ODD: []}
        for path in self.inner_folders(folder):
            kinds[kind_of(path.name)].append(path)
        together = splits_of_siblings(path.name for path in kinds[CLASS])
        kinds[SPLIT] += [path for path in kinds[CLASS] if path.name in together]
        kinds[CLASS] = [path for path in kinds[CLASS] if path.name not in together]
        if not kinds[SPLIT] and not kinds[CONTAINER]:
            # A class may be called "mask"; folders of masks stand beside folders of images.
            kinds[CLASS], kinds[MASK] = sorted([*kinds[CLASS], *kinds[MASK]]), []
        self.check_level(folder, split, kinds)
        for path in kinds[MASK]:
            self.left_out[f"folder(s) of masks ({path.name})"] += 1
        for path in kinds[SPLIT]:
            before = len(self.rows)
            self.read_level(path, together.get(path.name) or split_of(path.name))
            if len(self.rows) == before:
                raise DataError(
                    f"{path} is a split by its name and holds no class folders, so its images have no label. Put "
                    "them into one folder a class, or list them in a metadata.csv."
                )
        if len(kinds[CONTAINER]) > 1:
            several = ", ".join(path.name for path in kinds[CONTAINER])
            self.notes.append(f"The folders {several} are read as parts of one data set; no label is taken from them.")
        for path in kinds[CONTAINER]:
            self.read_level(path, split)
        loose = [path for path in folder.iterdir() if path.is_file() and self.may_be_image(path)]
        if loose and folder != self.root.parent:
            self.left_out[f"file(s) in {folder.name} that lie in no class folder"] += len(loose)
        for path in kinds[CLASS]:
            self.read_class(path, split)

    def check_level(self, folder: Path, split: str, kinds: dict[str, list[Path]]) -> None:
        """Raises DataError where splits, containers and classes stand side by side, or splits in splits."""
        others = [path.name for kind in (SPLIT, CONTAINER, CLASS) for path in kinds[kind]]
        if kinds[ODD]:
            raise DataError(unclear(folder, [path.name for path in kinds[ODD]]))
        if kinds[SPLIT] and (kinds[CLASS] or kinds[CONTAINER]):
            mixed = ", ".join(path.name for path in [*kinds[CLASS], *kinds[CONTAINER]])
            raise DataError(f"{folder} mixes split folders with others ({mixed}). Use one kind, or a metadata.csv.")
        if kinds[CONTAINER] and kinds[CLASS]:
            raise DataError(
                f"{folder} holds {', '.join(others)}: it cannot be told which of them are classes. Use one folder a "
                "class, or a metadata.csv."
            )
        if split and kinds[SPLIT]:
            raise DataError(f"{folder} holds splits ({', '.join(others)}) inside the split {split}. Use one of them.")

    def may_be_image(self, path: Path) -> bool:
        """Whether a file may be an image; what is none by its name is counted."""
        if is_system(path) or is_annotation_file(path):
            return False
        if path.suffix.lower() in NO_IMAGES:
            self.left_out[f"file(s) that are no images by their ending ({path.suffix.lower()})"] += 1
            return False
        return True

    def read_class(self, folder: Path, split: str) -> None:
        """Read the images of one class, with the split and the patient that folders inside it say."""
        for file in self.files_in(folder):
            inner = file.relative_to(folder).parts[:-1]
            kinds = [kind_of(name) for name in inner]
            if ODD in kinds:
                raise DataError(unclear(folder, [name for name in inner if kind_of(name) == ODD]))
            if MASK in kinds:
                self.left_out["file(s) in folders of masks"] += 1
                continue
            given = next((split_of(name) for name in inner if split_of(name)), "")
            if split and given and given != split:
                raise DataError(f"{file} lies in the split {split} and in {given}. Move it into one of them.")
            row = base_row(os.path.abspath(file), file.relative_to(self.root).as_posix(), folder.name, split or given)
            patients = [name for name, kind in zip(inner, kinds, strict=True) if kind == CLASS]
            # Without any, batch_1 or img_001 may be what a patient's slices lie in.
            patients = patients or [name for name in inner if is_numbered(name) and not split_of(name)]
            if patients:
                row["group_id"] = patients[0]
                self.groups.add(patients[0])
            self.rows.append(row)

    def files_in(self, folder: Path) -> Iterator[Path]:
        """The files anywhere in a folder that may be images, sorted."""
        for path in sorted(below(folder)):
            inside = path.relative_to(folder).parents
            if any(is_system(folder / part) for part in inside if part.name):
                continue
            if path.is_dir():
                if is_system(path):
                    self.left_out[f"folder(s) of the system ({path.name})"] += 1
            elif path.is_file() and self.may_be_image(path):
                yield path


def below(folder: Path) -> Iterator[Path]:
    """All that lies in a folder, also behind links to folders; one that lies in itself by a link is entered once."""
    entered = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        yield from (Path(place, name) for name in (*folders, *files))


def folder_rows(folder: Path) -> tuple[list[dict], list[str]]:
    """The rows of class folders, and what is to be said of how they were read. Raises DataError."""
    reader = FolderReader(folder)
    reader.read()
    return reader.rows, reader.notes
