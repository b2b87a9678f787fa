"""What a Space does: app.py with bundles of the Hub, as a user who may write almost nowhere; and how it is deployed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from medssl.bundle.bundle import Bundle
from tests import warm
from tests.conftest import ROOT, sample
from tests.hub.conftest import WRITE, client_environment, wait_for

HEAD = "me/medssl-shapes-tiny-dinov2"
NOBODY = "65534"


def plain_user() -> list[str]:
    """A command's start that runs the rest without any right of the superuser. Skips where that cannot be had."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root without setpriv cannot become a plain user")
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    # Python may lie in a folder that only root may enter; root without capabilities has no more rights over files.
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    # A Python that cannot see its own folder still starts, as the system's, but starts no child (which reads uploads).
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True); print(sys.prefix)"
    told = subprocess.run([*nobody, sys.executable, "-c", child], capture_output=True, text=True)
    return nobody if told.stdout.strip() == sys.prefix else powerless


@pytest.fixture(scope="module")
def space(stand_in, published):
    """app.py in a folder without write access, serving a bundle of the Hub from a fresh cache; its address."""
    user = plain_user()
    root = Path(tempfile.mkdtemp(prefix="medssl-space-"))
    root.chmod(0o755)
    code, home = root / "code", root / "home"
    shutil.copytree(ROOT / "medssl", code / "medssl", ignore=shutil.ignore_patterns("__pycache__", "bundles"))
    shutil.copy(ROOT / "app.py", code)
    for path in [*code.rglob("*"), code]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    home.mkdir()
    home.chmod(0o777)
    assert subprocess.run([*user, "touch", str(code / "new")], capture_output=True).returncode != 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"MEDSSL_BUNDLES": HEAD, "HOME": str(code), "TMPDIR": str(home), "GRADIO_SERVER_PORT": str(port)}
    environment = {**client_environment(stand_in.url, home / "hf", WRITE), **own, "PYTHONDONTWRITEBYTECODE": "1"}
    log = root / "log.txt"
    with open(log, "w", encoding="utf-8") as output:
        command = [*user, sys.executable, "app.py"]
        process = subprocess.Popen(command, cwd=code, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        for path in [code, *(path for path in code.rglob("*") if path.is_dir())]:
            path.chmod(0o755)
        shutil.rmtree(root, ignore_errors=True)


def query(image, environment=None, **options):
    command = [ROOT / "scripts" / "query.py", "--task", "shapes", image]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    return warm.run_fresh(command, environment)


def test_app_answers_a_query_with_a_bundle_of_the_hub(space, tiny_data, tiny_bundle_folders):
    image = sample(tiny_data["shapes"], "stripes")
    done = query(image, url=space)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    expected = Bundle.load(tiny_bundle_folders["shapes"]).analyze(image, explain=False).to_dict()
    assert answer["prediction"] == expected["prediction"] and answer["cases"] == expected["cases"]


def test_a_query_finds_a_private_space_by_its_name(space, hub, stand_in, tiny_data, tmp_path):
    image = sample(tiny_data["shapes"], "stripes")
    hub.add("space", "me/running", {"README.md": b""}, private=True).host = space
    hub.add("space", "me/broken", {"README.md": b""})
    owner, anybody = (client_environment(stand_in.url, tmp_path, token) for token in (WRITE, None))
    done = query(image, owner, url="me/running")
    assert done.returncode == 0 and json.loads(done.stdout)["task"] == "shapes", done.stderr
    for name, environment in (("me/running", anybody), ("me/broken", owner), ("me/missing", owner)):
        refused = query(image, environment, url=name)
        assert refused.returncode == 2 and f"No medssl app answers at {name}" in refused.stderr
        assert "HF_TOKEN" in refused.stderr and "Traceback" not in refused.stderr


def test_the_script_makes_a_space_and_does_nothing_twice(hub, publisher):
    asked, arguments = len(hub.calls), ["--space", "me/demo", "--bundles", f"{HEAD}, me/two"]
    plan = publisher.do("script", name="deploy_space.py", arguments=[*arguments, "--dry-run"])
    assert plan["code"] == 0 and len(hub.calls) == asked
    assert "app.py" in plan["out"] and f"MEDSSL_BUNDLES={HEAD},me/two" in plan["out"]
    done = publisher.do("script", name="deploy_space.py", arguments=arguments)
    assert done["code"] == 0 and "updated" in done["out"], done["error"]
    repo = hub.repos["space", "me/demo"]
    assert repo.private and repo.sdk == "gradio" and repo.variables == {"MEDSSL_BUNDLES": f"{HEAD},me/two"}
    assert {"app.py", "README.md", "requirements.txt", "medssl/web/page.py"} <= set(repo.files)
    assert not any("__pycache__" in name or name.startswith(("tests", "scripts")) for name in repo.files)
    header = yaml.safe_load(repo.files["README.md"].decode().split("---")[1])
    assert header["models"] == [HEAD, "me/two"] and header["datasets"] == [f"{HEAD}-cases", "me/two-cases"]
    requirements = repo.files["requirements.txt"].decode()
    packages = {re.split(r"[=<>;\s]", line)[0] for line in requirements.splitlines()}
    assert (
        not packages & {"gradio", "gradio_client"} and "torch>=" in requirements and "qdrant-client==" in requirements
    )
    again = publisher.do("script", name="deploy_space.py", arguments=arguments)
    assert "unchanged" in again["out"] and len(repo.commits) == 2
    refused = publisher.do("script", name="deploy_space.py", arguments=arguments, token="hf_wrong")
    assert refused["code"] == 2 and "refuses the token" in refused["error"]


def test_this_repository_is_a_space_as_it_is():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import deploy_space
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    header = yaml.safe_load((ROOT / "README.md").read_text("utf-8").split("---")[1])
    assert header == yaml.safe_load(deploy_space.front_matter())
    assert (ROOT / header["app_file"]).is_file() and len(header["title"]) > 0
    assert header["sdk"] == "gradio" and header["sdk_version"] == deploy_space.pinned("gradio")


@pytest.mark.parametrize("name", ["tests.yml", "space.yml"])
def test_the_workflows_name_what_there_is(name):
    text = (ROOT / ".github" / "workflows" / name).read_text("utf-8")
    steps = next(iter(yaml.safe_load(text)["jobs"].values()))["steps"]
    said = " ".join(step.get("run", "") for step in steps)
    assert all((ROOT / word).exists() for word in said.split() if word.startswith("scripts/"))
    assert "hf_" not in text and ("secrets.HF_TOKEN" in text) == (name == "space.yml")
