"""A loopback stand-in for the Hugging Face Hub: the calls that its real clients make, with repos kept in memory.

It knows commits, tokens, private and gated repos and the LFS upload. It does not know Xet, quotas, pull requests, who
may write where in an organisation, or the checks that the real Hub makes of a card.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import unquote

import uvicorn
import yaml
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

WRITE, READ = "hf_write", "hf_read"  # the two tokens that are valid; the second one's owner may read public repos only
OWNER = "me"
LFS_ENDINGS = (".parquet", ".safetensors", ".bin", ".png")


@dataclass
class Repo:
    """One repo: its commits, oldest first, as (sha, files)."""

    kind: str
    repo_id: str
    private: bool = False
    gated: bool = False
    sdk: str | None = None
    host: str | None = None  # where a Space runs
    variables: dict[str, str] = field(default_factory=dict)
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit with these files."""
        sha = hashlib.sha1(f"{self.kind}{self.repo_id}{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits.append((sha, dict(files)))
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit of that name; main is the newest."""
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)

    @property
    def files(self) -> dict[str, bytes]:
        """The files as they are now."""
        return self.commits[-1][1]


class Refused(Exception):  # noqa: N818
    """An answer that is an error, as the real Hub words it in its headers."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Hub:
    """The repos, the uploaded objects, every request's method and path, and what is to fail."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.broken: set[str] = set()  # repos whose next commits are answered with an error

    def add(self, kind: str, repo_id: str, files: dict[str, bytes], **settings: bool) -> Repo:
        """Put a repo there without a client."""
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, **settings)
        repo.commit(files)
        return repo

    def find(self, request: Request, kind: str, repo_id: str, content: bool = False) -> Repo:
        """The repo, if the request may see it."""
        user = self.user(request)
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and user != OWNER):
            raise Refused(401 if user is None else 404, "RepoNotFound", "Repository not found")
        if content and repo.gated and user != OWNER:
            raise Refused(401 if user is None else 403, "GatedRepo", "Access to this repo is restricted")
        return repo

    @staticmethod
    def user(request: Request) -> str | None:
        """Who asks; None without a token."""
        header = request.headers.get("authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in (WRITE, READ):
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return OWNER if token == WRITE else "reader"

    def owner(self, request: Request) -> None:
        """Raises Refused unless the request may write."""
        if self.user(request) != OWNER:
            raise Refused(401 if self.user(request) is None else 403, "", "You may not write here")


def blob_id(data: bytes) -> str:
    """Git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path: str) -> bool:
    """Whether a file goes through LFS."""
    return path.endswith(LFS_ENDINGS)


def file_facts(path: str, data: bytes) -> dict:
    """A file as the tree lists it."""
    facts = {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)}
    if is_lfs(path):
        facts["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return facts


def folders(files: dict[str, bytes]) -> set[str]:
    """All folders above the files."""
    found = set()
    for path in files:
        parts = path.split("/")[:-1]
        found |= {"/".join(parts[: count + 1]) for count in range(len(parts))}
    return found


def repo_facts(repo: Repo, sha: str, files: dict[str, bytes]) -> dict:
    """What repo_info answers."""
    card = files.get("README.md", b"").decode()
    data = yaml.safe_load(card.split("---")[1]) if card.startswith("---") else {}
    return {
        "id": repo.repo_id,
        "modelId": repo.repo_id,
        "author": repo.repo_id.split("/")[0],
        "sha": sha,
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "cardData": data,
        "siblings": [{"rfilename": path} for path in files],
        "host": repo.host,
    }


def make_app(hub: Hub) -> FastAPI:
    """The web application."""
    app = FastAPI()

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
        return JSONResponse({"error": error.message}, error.status, {k: v for k, v in headers.items() if v})

    @app.middleware("http")
    async def noted(request: Request, call_next):
        hub.calls.append(f"{request.method} {request.url.path}")
        return await call_next(request)

    @app.post("/api/repos/create")
    async def create(request: Request) -> Response:
        hub.owner(request)
        body = await request.json()
        kind = body.get("type") or "model"
        repo_id = f"{body.get('organization') or OWNER}/{body['name']}"
        url = {"url": f"{request.base_url}{'' if kind == 'model' else kind + 's/'}{repo_id}", "name": repo_id}
        if (kind, repo_id) in hub.repos:
            return JSONResponse({"error": "You already created this repo", **url}, 409)
        private = bool(body.get("private")) or body.get("visibility") == "private"
        repo = hub.add(kind, repo_id, {".gitattributes": b""}, private=private)
        repo.sdk = body.get("sdk")
        return JSONResponse(url)

    @app.post("/api/spaces/{owner}/{name}/variables")
    async def variable(request: Request, owner: str, name: str) -> dict:
        hub.owner(request)
        body = await request.json()
        hub.find(request, "space", f"{owner}/{name}").variables[body["key"]] = body["value"]
        return {body["key"]: {"value": body["value"]}}

    @app.get("/api/spaces/{owner}/{name}/runtime")
    def runtime(request: Request, owner: str, name: str) -> dict:
        running = hub.find(request, "space", f"{owner}/{name}").host is not None
        return {"stage": "RUNNING" if running else "BUILD_ERROR", "hardware": {"current": "cpu-basic"}}

    @app.post("/api/validate-yaml")
    async def validate(request: Request) -> dict:
        content = (await request.json())["content"]
        return {"errors": [], "warnings": [], "parsed": yaml.safe_load(content.split("---")[1])}

    @app.post("/api/{kind}s/{owner}/{name}/preupload/{revision}")
    async def preupload(request: Request, kind: str, owner: str, name: str, revision: str) -> dict:
        hub.owner(request)
        _, files = hub.find(request, kind, f"{owner}/{name}").at(revision)
        answer = []
        for asked in (await request.json())["files"]:
            path = asked["path"]
            found = file_facts(path, files[path]) if path in files else {}
            oid = found.get("lfs", found).get("oid")
            mode = "lfs" if is_lfs(path) else "regular"
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answer}

    @app.post("/{prefix:path}.git/info/lfs/objects/batch")
    async def batch(request: Request, prefix: str) -> dict:
        hub.owner(request)
        objects = []
        for asked in (await request.json())["objects"]:
            found = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in hub.objects:
                found["actions"] = {"upload": {"href": f"{request.base_url}lfs/{asked['oid']}", "header": {}}}
            objects.append(found)
        return {"transfer": "basic", "objects": objects}

    @app.put("/lfs/{oid}")
    async def put(request: Request, oid: str) -> dict:
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != oid:
            raise Refused(422, "", "wrong hash")
        hub.objects[oid] = data
        return {}

    @app.post("/api/{kind}s/{owner}/{name}/commit/{revision}")
    async def commit(request: Request, kind: str, owner: str, name: str, revision: str) -> dict:
        hub.owner(request)
        repo = hub.find(request, kind, f"{owner}/{name}")
        if repo.repo_id in hub.broken:
            raise Refused(418, "", "told to fail")
        files = dict(repo.files)
        for line in (await request.body()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header" and value.get("parentCommit") not in (None, repo.commits[-1][0]):
                raise Refused(412, "", "another commit came in between")
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"])
        sha = repo.commit(files)
        kinds = "" if kind == "model" else f"{kind}s/"
        return {"commitUrl": f"{request.base_url}{kinds}{repo.repo_id}/commit/{sha}", "commitOid": sha, "success": True}

    def info(request: Request, kind: str, owner: str, name: str, revision: str = "main") -> dict:
        repo = hub.find(request, kind, f"{owner}/{name}")
        found = repo.at(unquote(revision))
        if found is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo_facts(repo, *found)

    app.get("/api/{kind}s/{owner}/{name}")(info)
    app.get("/api/{kind}s/{owner}/{name}/revision/{revision}")(info)

    @app.get("/api/{kind}s/{owner}/{name}/tree/{revision}")
    @app.get("/api/{kind}s/{owner}/{name}/tree/{revision}/{path:path}")
    def tree(request: Request, kind: str, owner: str, name: str, revision: str, path: str = "") -> Response:
        found = hub.find(request, kind, f"{owner}/{name}", content=True).at(revision)
        if found is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files, start = found[1], f"{path}/" if path else ""
        deep = request.query_params.get("recursive", "").lower() == "true"
        entries = [
            {"type": "directory", "path": name, "oid": blob_id(name.encode()), "size": 0} for name in folders(files)
        ]
        entries += [file_facts(name, data) for name, data in files.items()]
        entries = [entry for entry in entries if entry["path"].startswith(start)]
        if not deep:
            entries = [entry for entry in entries if "/" not in entry["path"][len(start) :]]
        if path and not entries:
            raise Refused(404, "EntryNotFound", f"{path} does not exist")
        return JSONResponse(sorted(entries, key=lambda entry: entry["path"]))

    @app.post("/api/{kind}s/{owner}/{name}/paths-info/{revision}")
    async def paths_info(request: Request, kind: str, owner: str, name: str, revision: str) -> Response:
        _, files = hub.find(request, kind, f"{owner}/{name}", content=True).at(revision)
        form = await request.form()
        asked = [str(path).strip("/") for path in form.getlist("paths")]
        inside = folders(files)
        entries = [file_facts(path, files[path]) for path in asked if path in files]
        entries += [
            {"type": "directory", "path": path, "oid": blob_id(path.encode()), "size": 0}
            for path in asked
            if path in inside
        ]
        return JSONResponse(entries)

    def resolve(request: Request, kind: str, repo_id: str, revision: str, path: str) -> Response:
        repo = hub.find(request, kind, repo_id, content=True)
        found = repo.at(revision)
        if found is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        sha, files = found
        if path not in files:
            headers = {"X-Repo-Commit": sha, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return Response(status_code=404, headers=headers)
        data = files[path]
        facts = file_facts(path, data)
        headers = {"ETag": f'"{facts.get("lfs", facts)["oid"]}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(data))})
        span = request.headers.get("range", "")
        if span.startswith("bytes="):
            first, last = span.removeprefix("bytes=").split("-")
            start = int(first) if first else len(data) - int(last)
            stop = min(int(last) + 1, len(data)) if first and last else len(data)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            return Response(data[start:stop], 206, headers)
        return Response(data, headers=headers)

    @app.api_route("/{kind}s/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def resolve_other(request: Request, kind: str, owner: str, name: str, revision: str, path: str) -> Response:
        return resolve(request, kind, f"{owner}/{name}", revision, path)

    @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def resolve_model(request: Request, owner: str, name: str, revision: str, path: str) -> Response:
        return resolve(request, "model", f"{owner}/{name}", revision, path)

    return app


class StandIn:
    """The stand-in on a free port, in a thread of this process."""

    def __init__(self) -> None:
        self.hub = Hub()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        settings = uvicorn.Config(make_app(self.hub), host="127.0.0.1", port=port, log_level="error")
        self.server = uvicorn.Server(settings)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)

    def close(self) -> None:
        """Stop answering."""
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(2)


if __name__ == "__main__":
    print(StandIn().url, flush=True)
    threading.Event().wait()
