"""The folder order of the design: no room imports one above it, and no file imports itself round a corner."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "medssl"
ORDER = [
    {"errors", "files", "runtime", "shapes", "templates", "text"},
    {"images", "metrics", "hub"},
    {"data"},
    {"backbones"},
    {"audit", "library", "heads", "pretrain"},
    {"explain"},
    {"bundle"},
    {"report"},
    {"study", "demo"},
    {"web"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """The modules that a file imports, wherever in it and in whatever form; names inside a module count as it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path} imports relatively"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(submodules & known or {node.module})
    return found


def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """Which files of the package each file imports; a folder's `__init__` only re-exports, so it is no file here."""
    inner = {name: path for name, path in files.items() if path.name != "__init__.py"}
    return {name: imported_modules(path, set(files)) & set(inner) - {name} for name, path in inner.items()}


def find_circle(edges: dict[str, set[str]]) -> list[str]:
    """A circle of imports as a list that begins and ends alike; empty where there is none."""
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(edges.get(name, ())):
            if circle := follow(other, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(edges) if (circle := follow(name, []))), [])


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_place_in_the_order():
    unknown = {room(name) for name in modules()} - set(LEVEL) - {""}
    assert not unknown, f"give these rooms a place in ORDER: {sorted(unknown)}"


def test_nothing_imports_upwards():
    files = modules()
    offences = [
        f"{name} imports {other}"
        for name, path in files.items()
        if name != "medssl"
        for other in imported_modules(path, set(files))
        if other.startswith("medssl.") and LEVEL[room(other)] > LEVEL[room(name)]
    ]
    assert not offences, offences


def test_rooms_of_one_level_do_not_import_each_other_in_a_circle():
    edges: dict[str, set[str]] = {}
    for name, others in graph(modules()).items():
        edges.setdefault(room(name), set()).update(room(other) for other in others if room(other) != room(name))
    assert not find_circle(edges)


def test_no_circle_of_files():
    assert not find_circle(graph(modules()))


def test_folders_are_imported_from_outside_only():
    """A file that imports a name from its own folder's `__init__` would make a circle that `graph` cannot see."""
    files = modules()
    offences = [
        f"{name} imports {folder}"
        for name, path in files.items()
        if path.name != "__init__.py"
        for folder in imported_modules(path, set(files))
        if folder in files and files[folder].name == "__init__.py" and name.startswith(f"{folder}.")
        if name.count(".") > folder.count(".") and folder != "medssl"
    ]
    assert not offences, offences


@pytest.mark.parametrize("line", ["from b import thing", "import b", "def later():\n    from b import thing"])
def test_a_circle_is_seen_in_every_form(tmp_path, line):
    (tmp_path / "a.py").write_text(line)
    (tmp_path / "b.py").write_text("from a import thing")
    edges = {name: imported_modules(tmp_path / f"{name}.py", {"a", "b"}) for name in ("a", "b")}
    assert find_circle(edges) in (["a", "b", "a"], ["b", "a", "b"])


def test_an_upward_import_is_seen(tmp_path):
    bad = tmp_path / "read.py"
    bad.write_text("from medssl.web import page")
    assert imported_modules(bad, {"medssl.web.page"}) == {"medssl.web.page"}
    assert LEVEL["web"] > LEVEL["images"]


def roots_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(path, set())}


def test_scripts_are_the_top():
    assert not [path for path in PACKAGE.rglob("*.py") if roots_of(path) & {"scripts", "app", "_cli"}]


def test_nobody_needs_torchvision():
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py"), ROOT / "app.py"]
    assert not [path for path in files if "torchvision" in roots_of(path)]


@pytest.mark.parametrize(
    "line", ["import torchvision", "from torchvision.io import read_image", "import torchvision.io"]
)
def test_torchvision_is_seen_in_every_form(tmp_path, line):
    bad = tmp_path / "bad.py"
    bad.write_text(line)
    assert "torchvision" in roots_of(bad)
