"""The tasks, as data: one diagnostic question each."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pydantic import TypeAdapter, with_config
from typing_extensions import NotRequired, TypedDict

from medssl.errors import BundleError
from medssl.shapes import check_shape

SYNTHETIC = "Synthetic images: drawn by code to show how this program works. They say nothing about any disease."
NOT_FOR_DIAGNOSIS = "Research tool. Not a medical device, never a diagnosis: it must not guide anybody's care."


@with_config(extra="forbid")
class StoredTask(TypedDict):
    """Fields of `Task` as a head's config.json holds them; `licence` is spelled as earlier versions wrote it."""

    name: str
    title: str
    labels: list[str]
    modality: str
    data: NotRequired[str]
    licence: NotRequired[str]
    citation: NotRequired[str]
    synthetic: NotRequired[bool]


SHAPE = TypeAdapter(StoredTask)


@dataclass(frozen=True)
class Task:
    """One diagnostic question: its labels in order, its modality, and where its data comes from.

    `synthetic` says that its images were drawn by code, which every screen then says too.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    modality: str
    data: str = "not stated"
    license: str = "not stated"
    citation: str = "not stated"
    synthetic: bool = False

    @property
    def registered(self) -> bool:
        """Whether this is a task of TASKS on images that somebody gave, which may be others than those it names."""
        return TASKS.get(self.name) == self and not self.synthetic

    def to_dict(self) -> dict:
        """The task in plain JSON types, by the names of StoredTask."""
        fields = {"licence" if name == "license" else name: value for name, value in asdict(self).items()}
        return {**fields, "labels": list(self.labels)}

    @classmethod
    def from_dict(cls, fields: dict) -> Task:
        """The inverse of `to_dict`. Raises BundleError for a stored task with a field missing, unknown or wrong."""
        check_shape(SHAPE, fields, "The task in the head's config.json", BundleError)
        own = {"license" if name == "licence" else name: value for name, value in fields.items()}
        return cls(**{**own, "labels": tuple(own["labels"])})


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="lung",
            title="Lung cancer (histology)",
            labels=("adenocarcinoma", "benign", "squamous_cell_carcinoma"),
            modality="H&E histology tile",
            data="LC25000",
            license="as stated by LC25000: free use with citation",
            citation="Borkowski et al. 2019, arXiv 1912.12142",
        ),
        Task(
            name="brain",
            title="Brain tumour (MRI)",
            labels=("glioma", "meningioma", "no_tumor", "pituitary"),
            modality="T1-weighted contrast-enhanced MRI slice",
            data="Cheng figshare 1512427; Br35H for no_tumor",
            license="CC BY 4.0 (figshare 1512427)",
            citation="Cheng 2017, doi 10.6084/m9.figshare.1512427",
        ),
        Task(
            name="leukaemia",
            title="Leukaemia (blood smear)",
            labels=("benign", "early", "pre", "pro"),
            modality="peripheral blood smear",
            data="ALL image set",
            license="as stated by the ALL image set",
            citation="Aria et al. 2021, ALL image data set",
        ),
        Task(
            name="eye",
            title="Eye disease (fundus)",
            labels=("cataract", "diabetic_retinopathy", "glaucoma", "normal"),
            modality="colour fundus photograph",
            data="eye diseases classification set",
            license="not stated by the source",
            citation="eye_diseases_classification, public collection",
        ),
    )
}

# The offline demo's tasks ask the same questions of pictures that medssl/demo draws.
TASKS.update(
    {
        f"{task.name}-demo": Task(
            name=f"{task.name}-demo",
            title=f"{task.title}, synthetic demo",
            labels=task.labels,
            modality=f"synthetic picture in the style of a {task.modality}",
            data="phantoms drawn by medssl/demo",
            license="apache-2.0",
            citation="medssl",
            synthetic=True,
        )
        for task in tuple(TASKS.values())
    }
)


def get_task(name: str, labels: tuple[str, ...] | list[str] | None = None) -> Task:
    """The registered task of that name, or a plain new one when the labels found in the data differ or are new.

    A registered task keeps its own label order when the data has the same set of labels.
    """
    known = TASKS.get(name)
    if known and (labels is None or set(labels) == set(known.labels)):
        return known
    return Task(name=name, title=name.replace("_", " ").capitalize(), labels=tuple(labels or ()), modality="image")
