"""The import direction of the design: no room imports one above it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEVELS = [
    {"errors"},
    {
        "images",
        "dicom",
        "preprocess",
        "tasks",
        "registry",
        "backbone_groups",
        "bootstrap",
        "memory",
        "files",
        "decoded_uploads",
        "served_pictures",
        "hub",
        "publisher",
        "signature",
        "zero_gpu",
    },
    {
        "attention",
        "encoding",
        "checkpoints",
        "backbones",
        "data",
        "shortcuts",
        "findings",
        "confounds",
        "near_duplicates",
    },
    {
        "audit",
        "neighbours",
        "worst_pairs",
        "embeddings",
        "heads",
        "patch_head",
        "patches",
        "store",
        "library",
        "explain",
    },
    {
        "training",
        "patch_training",
        "evaluation",
        "bundle",
        "measure",
        "card",
        "cases_card",
        "publish",
        "build",
        "probes",
        "trials",
        "label_efficiency",
        "image_level",
        "random_twin",
        "comparisons",
        "results",
        "figures",
        "study",
        "pretrain",
        "demo",
    },
    {"report", "render", "visit", "api", "cases_panel", "heatmap_panel", "ui"},
    {"app"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("medssl."):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "medssl":
            rooms.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            rooms.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("medssl."))
    return rooms


def sources() -> dict[Path, str]:
    package = ROOT / "medssl"
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts != ("__init__",):
            found[path] = parts[0]
    return found


def test_every_room_has_a_level():
    unknown = {room for room in sources().values() if room not in LEVEL}
    assert not unknown, f"give these rooms a level in LEVELS: {sorted(unknown)}"


def test_nothing_imports_upwards():
    offences = []
    for path, room in sources().items():
        for other in imported_rooms(path):
            if other in LEVEL and LEVEL[other] > LEVEL[room]:
                offences.append(f"{path.relative_to(ROOT)} ({room}) imports {other}")
    assert not offences, offences


def test_the_check_sees_an_upward_import(tmp_path):
    bad = tmp_path / "images.py"
    bad.write_text("from medssl.ui import build_app\n")
    assert LEVEL[next(iter(imported_rooms(bad)))] > LEVEL["images"]


def test_scripts_are_the_top():
    for path in (ROOT / "medssl").rglob("*.py"):
        assert "import scripts" not in path.read_text("utf-8")


def test_nobody_needs_torchvision():
    for path in [*(ROOT / "medssl").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), ROOT / "app.py"]:
        if path.exists():
            assert "import torchvision" not in path.read_text("utf-8"), path
