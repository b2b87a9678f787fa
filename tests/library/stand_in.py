"""A stand-in for a Qdrant server on this machine: the calls that medssl makes, over plain dicts and numpy.

It shows that the calls go out in a shape that a server takes and that their answers are read rightly. It shows nothing
of a server's HNSW, quantisation, shards or replicas: those settings are only recorded.
"""

import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request


class StandIn:
    """Collections and aliases, and how often each call came."""

    def __init__(self, pause=0.0):
        self.collections, self.aliases, self.calls = {}, {}, []
        self.pause, self.lock = pause, threading.Lock()

    def points(self, name):
        return self.collection(name)["points"]

    def collection(self, name):
        name = self.aliases.get(name, name)
        if name not in self.collections:
            raise HTTPException(404, f"Collection `{name}` doesn't exist!")
        return self.collections[name]


def left_out(conditions, number, payload):
    for condition in conditions:
        if number in condition.get("has_id", ()):
            return True
        if "key" in condition and payload.get(condition["key"]) == condition["match"]["value"]:
            return True
    return False


def make_app(state: StandIn) -> FastAPI:
    app = FastAPI()

    def answer(result):
        return {"result": result, "status": "ok", "time": 0.0}

    @app.middleware("http")
    async def count(request: Request, call_next):
        state.calls.append(f"{request.method} {request.url.path}")
        return await call_next(request)

    @app.get("/collections")
    def listed():
        return answer({"collections": [{"name": name} for name in state.collections]})

    @app.get("/collections/{name}/exists")
    def exists(name: str):
        return answer({"exists": name in state.collections})

    @app.put("/collections/{name}")
    def create(name: str, body: dict):
        with state.lock:
            if name in state.collections:
                raise HTTPException(409, f"Collection `{name}` already exists!")
            state.collections[name] = {"made": body, "indexes": [], "points": {}}
        return answer(True)

    @app.delete("/collections/{name}")
    def delete(name: str):
        state.collections.pop(name, None)
        state.aliases = {alias: target for alias, target in state.aliases.items() if target != name}
        return answer(True)

    @app.get("/collections/{name}")
    def describe(name: str):
        found = state.collection(name)
        made = found["made"]
        params = {
            "vectors": made["vectors"],
            "shard_number": made.get("shard_number") or 1,
            "replication_factor": made.get("replication_factor") or 1,
        }
        hnsw = {"full_scan_threshold": 10000, **made["hnsw_config"]}
        config = {
            "params": params,
            "hnsw_config": hnsw,
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "quantization_config": made.get("quantization_config"),
        }
        count = len(found["points"])
        return answer(
            {
                "status": "green",
                "optimizer_status": "ok",
                "points_count": count,
                "segments_count": 1,
                "indexed_vectors_count": count,
                "config": config,
                "payload_schema": {},
            }
        )

    @app.put("/collections/{name}/index")
    def index(name: str, body: dict):
        state.collection(name)["indexes"].append(body)
        return answer({"operation_id": 0, "status": "completed"})

    @app.get("/aliases")
    def aliases():
        pairs = [{"alias_name": alias, "collection_name": name} for alias, name in state.aliases.items()]
        return answer({"aliases": pairs})

    @app.post("/collections/aliases")
    def change(body: dict):
        for action in body["actions"]:
            if "delete_alias" in action:
                state.aliases.pop(action["delete_alias"]["alias_name"])
            else:
                made = action["create_alias"]
                state.collection(made["collection_name"])
                state.aliases[made["alias_name"]] = made["collection_name"]
        return answer(True)

    @app.post("/collections/{name}/points/count")
    def counted(name: str, body: dict):
        return answer({"count": len(state.points(name))})

    @app.post("/collections/{name}/points")
    def retrieve(name: str, body: dict):
        return answer([{"id": number} for number in body["ids"] if number in state.points(name)])

    @app.put("/collections/{name}/points")
    def upsert(name: str, body: dict):
        time.sleep(state.pause)
        batch = body["batch"]
        for number, vector, payload in zip(batch["ids"], batch["vectors"], batch["payloads"], strict=True):
            state.points(name)[number] = (np.asarray(vector, np.float32), payload)
        return answer({"operation_id": 0, "status": "completed"})

    @app.post("/collections/{name}/points/query")
    def query(name: str, body: dict):
        vector = np.asarray(body["query"]["nearest"] if isinstance(body["query"], dict) else body["query"], np.float32)
        conditions = (body.get("filter") or {}).get("must_not") or []
        points = [
            (number, stored)
            for number, (stored, payload) in state.points(name).items()
            if not left_out(conditions, number, payload)
        ]
        scores = np.array([stored @ vector for _, stored in points])
        best = np.argsort(-scores, kind="stable")[: body["limit"]]
        return answer({"points": [{"id": points[i][0], "version": 0, "score": float(scores[i])} for i in best]})

    return app


@contextmanager
def running(pause=0.0):
    """The stand-in and its address, served while inside."""
    state = StandIn(pause)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make_app(state), host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield state, f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
