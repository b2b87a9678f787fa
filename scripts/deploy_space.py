"""Create or update a Hugging Face Space that serves published bundles, or the synthetic demo without any."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import _cli

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.12"
# A Space brings its own gradio (sdk_version), and ZeroGPU its own torch, older than the one pinned here.
LEFT_TO_THE_SPACE = ("gradio", "gradio_client")
LOOSENED = {"torch": "torch>=2.8"}
LEFT_OUT = ("__pycache__", ".ruff_cache", ".pytest_cache")


def pinned(package: str) -> str:
    """The version of a package that requirements.txt asks for."""
    return re.search(rf"^{re.escape(package)}==([^;\s]+)", (ROOT / "requirements.txt").read_text("utf-8"), re.M)[1]


def space_requirements() -> str:
    """requirements.txt as a Space can install it."""
    lines = []
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines():
        name = re.split(r"[=<>;\s]", line)[0]
        if name not in LEFT_TO_THE_SPACE:
            lines.append(LOOSENED.get(name, line))
    return "\n".join(lines) + "\n"


def front_matter(bundles: Sequence[str] = ()) -> str:
    """The YAML that the Hub reads at the top of a Space's README."""
    from huggingface_hub import SpaceCardData

    return SpaceCardData(
        title="medssl",
        emoji="🔬",
        colorFrom="blue",
        colorTo="gray",
        sdk="gradio",
        sdk_version=pinned("gradio"),
        python_version=PYTHON,
        app_file="app.py",
        models=list(bundles) or None,
        datasets=[f"{name}-cases" for name in bundles] or None,
        startup_duration_timeout="1h" if bundles else None,
    ).to_yaml()


def space_readme(bundles: Sequence[str] = ()) -> str:
    """This repository's README under a Space's front matter."""
    body = re.sub(r"\A---\n.*?\n---\n", "", (ROOT / "README.md").read_text("utf-8"), flags=re.S)
    return f"---\n{front_matter(bundles)}\n---\n{body}"


def space_files() -> Iterator[Path]:
    """What goes to a Space as it is, besides README.md and requirements.txt."""
    yield ROOT / "app.py"
    for folder in (ROOT / "medssl", ROOT / "docs"):
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        yield from (path for path in files if not set(path.parts) & set(LEFT_OUT) and not path.name.startswith("."))


def gather(folder: Path, bundles: Sequence[str]) -> None:
    """Put all files of the Space into a folder."""
    for path in space_files():
        place = folder / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    (folder / "README.md").write_text(space_readme(bundles), "utf-8")
    (folder / "requirements.txt").write_text(space_requirements(), "utf-8")


def main() -> int:
    """Parse the arguments and deploy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", required=True, help="the Space, as NS/NAME")
    parser.add_argument("--bundles", default="", help="comma-separated Hub ids to serve (default: the synthetic demo)")
    parser.add_argument("--public", action="store_true", help="make a new Space public (default: private)")
    parser.add_argument("--hardware", help="for a new Space, as the Hub names it: zero-a10g, cpu-basic, ...")
    parser.add_argument(
        "--dry-run", action="store_true", help="only list the files, with the README's head; no network"
    )
    arguments = parser.parse_args()
    bundles = [name.strip() for name in arguments.bundles.split(",") if name.strip()]
    wrong = [name for name in [arguments.space, *bundles] if not re.fullmatch(r"[\w.-]+/[\w.-]+", name)]
    if wrong:
        parser.error(f"{wrong[0]!r} is no Hub id; Hub ids are of the form NS/NAME.")

    with tempfile.TemporaryDirectory(prefix="medssl-space-") as work:
        folder = Path(work)
        gather(folder, bundles)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e6
        if arguments.dry_run:
            print("\n".join(f"{path.stat().st_size:>9}  {path.relative_to(folder)}" for path in files))
            print(f"{len(files)} files, {size:.1f} MB, for {arguments.space}\n\n---\n{front_matter(bundles)}\n---")
            print(f"MEDSSL_BUNDLES={','.join(bundles)}")
            return 0
        upload(arguments, folder, bundles)
    return 0


def upload(arguments: argparse.Namespace, folder: Path, bundles: Sequence[str]) -> None:
    """Make the Space where it is not there, set what it serves, and bring its files up to date in one commit."""
    from huggingface_hub import HfApi

    from medssl.hub.pull import hub_errors

    api, name = HfApi(), arguments.space
    with hub_errors(name):
        hardware = {"space_hardware": arguments.hardware} if arguments.hardware else {}
        private = not arguments.public
        api.create_repo(name, repo_type="space", space_sdk="gradio", private=private, exist_ok=True, **hardware)
        before = api.repo_info(name, repo_type="space").sha
        if bundles:
            api.add_space_variable(name, "MEDSSL_BUNDLES", ",".join(bundles))
        done = api.upload_folder(
            folder_path=folder, repo_id=name, repo_type="space", delete_patterns=["*"], commit_message="medssl"
        )
    print(f"{name} at {done.oid}, {'unchanged' if done.oid == before else 'updated'}")


if __name__ == "__main__":
    _cli.run(main)
