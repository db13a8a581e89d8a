"""Local HTTP server with those calls of Qdrant's REST API that the toolkit makes; it simulates failures. What it stores
and finds is the work of Qdrant's own engine, one for each shard: filters, products and document frequencies are real;
HTTP, and what makes several machines a cluster, are not."""

import itertools
import json
import tempfile
import threading
import time
import uuid
import zlib
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import qdrant_edge as engine

ROOM = 32 * 2**20  # bytes of a request that Qdrant takes by default


class Request(NamedTuple):
    """A request received."""

    method: str
    path: str
    body: dict[str, Any]
    key: str


class Fault(NamedTuple):
    """What to do with a request rather than what it asks for: answer with a status, or `cut` the answer in its midst,
    or `close` the connection at once, after `wait` seconds; `done` first does what it asks for."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False
    close: bool = False
    wait: float = 0.0
    done: bool = False


class Refusal(Exception):
    """An answer of 4xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class StoredCollection:
    """A collection, whose shards are each an engine."""

    def __init__(self, folder: Path, options: dict[str, Any], keeps_metadata: bool) -> None:
        self.options, self.schema = options, {}
        self.metadata = options.get("metadata", {}) if keeps_metadata else None
        half, idf = engine.VectorStorageDatatype.Float16, engine.Modifier.Idf
        sparse = {
            name: engine.EdgeSparseVectorParams(
                datatype=half if given.get("index", {}).get("datatype") == "float16" else None,
                modifier=idf if given.get("modifier") == "idf" else None,
            )
            for name, given in options["sparse_vectors"].items()
        }
        dense = {
            name: engine.EdgeVectorParams(
                given["size"],
                getattr(engine.Distance, given["distance"]),
                datatype=half if given.get("datatype") == "float16" else None,
            )
            for name, given in options["vectors"].items()
        }
        self.shards = []
        for number in range(options.get("shard_number") or 1):
            place = folder / str(number)
            place.mkdir(parents=True)
            config = engine.EdgeConfig(vectors=dense or None, sparse_vectors=sparse, wal_enabled=False)
            self.shards.append(engine.EdgeShard.create(str(place), config))

    def describe(self) -> dict[str, Any]:
        sizes = ("shard_number", "replication_factor", "write_consistency_factor")
        params = {name: self.options.get(name) or 1 for name in sizes}
        params |= {name: self.options[name] for name in ("vectors", "sparse_vectors", "on_disk_payload")}
        hnsw = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000}
        optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
        config = {"params": params, "hnsw_config": hnsw, "optimizer_config": optimizer | {"flush_interval_sec": 5}}
        if self.metadata is not None:
            config["metadata"] = self.metadata
        schema = {path: {"data_type": kind, "points": 0} for path, kind in self.schema.items()}
        state = {"status": "green", "optimizer_status": "ok", "segments_count": 1, "points_count": self.count(None)}
        return state | {"config": config, "payload_schema": schema}

    def _all(self, operation: engine.UpdateOperation) -> None:
        for shard in self.shards:
            shard.update(operation)

    def index(self, path: str, kind: str) -> None:
        self.schema[path] = kind
        self._all(engine.UpdateOperation.create_field_index(path, getattr(engine.PayloadSchemaType, kind.capitalize())))

    def upsert(self, points: list[dict[str, Any]]) -> None:
        for shard, part in itertools.groupby(sorted(points, key=self._shard), key=self._shard):
            converted = [
                engine.Point(
                    uuid.UUID(point["id"]),
                    {kind: _vector(vector) for kind, vector in point["vector"].items()},
                    point["payload"],
                )
                for point in part
            ]
            self.shards[shard].update(engine.UpdateOperation.upsert_points(converted))

    def _shard(self, point: dict[str, Any]) -> int:
        return zlib.crc32(point["id"].encode()) % len(self.shards)

    def delete(self, condition: dict[str, Any]) -> None:
        self._all(engine.UpdateOperation.delete_points_by_filter(_filter(condition)))

    def set_payload(self, payload: dict[str, Any], condition: dict[str, Any]) -> None:
        self._all(engine.UpdateOperation.set_payload_by_filter(_filter(condition), payload))

    def count(self, condition: dict[str, Any] | None) -> int:
        return sum(shard.count(engine.CountRequest(True, _filter(condition))) for shard in self.shards)

    def records(self, condition: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return all points that meet a condition, in the order of their ids."""
        request = {"limit": 10**6, "filter": _filter(condition), "with_payload": True, "with_vector": True}
        found = [record for shard in self.shards for record in shard.scroll(engine.ScrollRequest(**request))[0]]
        return sorted(
            ({"id": str(r.id), "payload": r.payload, "vector": _plain(r.vector)} for r in found), key=lambda r: r["id"]
        )

    def query(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        vector = asked["query"]
        vector = _vector(vector["nearest"] if isinstance(vector, dict) and "nearest" in vector else vector)
        request = engine.QueryRequest(
            limit=asked["limit"],
            query=engine.Query.Nearest(vector, using=asked["using"]),
            filter=_filter(asked.get("filter")),
            with_payload=True,
        )
        hits = [hit for shard in self.shards for hit in shard.query(request)]
        best = sorted(hits, key=lambda hit: -hit.score)[: asked["limit"]]
        return [
            {"id": str(h.id), "version": 0, "score": h.score, "payload": _part(h.payload, asked["with_payload"])}
            for h in best
        ]


def _vector(given: dict[str, list] | list[float]) -> engine.SparseVector | list[float]:
    return engine.SparseVector(**given) if isinstance(given, dict) else given


def _plain(vectors: dict[str, Any] | None) -> dict[str, Any]:
    return {
        kind: {"indices": list(vector.indices), "values": list(vector.values)}
        if isinstance(vector, engine.SparseVector)
        else list(vector)
        for kind, vector in (vectors or {}).items()
    }


def _part(values: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def _filter(condition: dict[str, Any] | None) -> engine.Filter | engine.FieldCondition | None:
    if condition is None:
        return None
    if "key" not in condition:
        parts = {name: [_filter(one) for one in condition[name]] for name in condition}
        return engine.Filter(**parts)
    options = {"range": engine.RangeFloat(**condition["range"])} if "range" in condition else {}
    if "match" in condition:
        ((kind, value),) = condition["match"].items()
        options["match"] = engine.MatchAny(value) if kind == "any" else engine.MatchValue(value)
    return engine.FieldCondition(condition["key"], **options)


class QdrantServer:
    """HTTP server on a free local port, until `close`.

    Args:
        key: the API key that it asks for; "" for none.
        keeps_metadata: of collections, as versions before 1.16 do not.

    Attributes:
        url: its URL.
        collections: what it stores, by name.
        requests: the requests so far.
        faults: what becomes of the next requests, first come first served.
        page: what it answers to everything, as another server would; None to be this one.
    """

    def __init__(self, key: str = "", keeps_metadata: bool = True) -> None:
        self.key, self.keeps_metadata, self.page = key, keeps_metadata, None
        self.collections: dict[str, StoredCollection] = {}
        self.requests: list[Request] = []
        self.faults: deque[Fault] = deque()
        self._folder = tempfile.TemporaryDirectory(prefix="qdrant-server-")
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(
                    self.command,
                    unquote(urlsplit(self.path).path),
                    json.loads(data) if data else {},
                    self.headers.get("api-key", ""),
                )
                with server._lock:
                    server.requests.append(request)
                    fault = server.faults.popleft() if server.faults else None
                if server.page is not None:
                    self.send(200, server.page.encode(), kind="text/html")
                elif not fault:
                    self.send(*server.answer(request, len(data)))
                else:
                    time.sleep(fault.wait)
                    answer = server.answer(request, len(data)) if fault.done else (fault.status, b'{"status": "busy"}')
                    if fault.close:
                        self.close_connection = True
                    else:
                        self.send(*answer, headers=fault.headers, cut=fault.cut)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any

            def send(self, status, data, kind="application/json", headers=(), cut=False) -> None:
                try:
                    self.send_response(status)
                    for name, value in (("Content-Type", kind), ("Content-Length", str(len(data))), *headers):
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data[: len(data) // 2] if cut else data)
                except OSError:  # the client has disconnected
                    self.close_connection = True
                self.close_connection |= cut

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.handle_error = lambda *_: None  # prints a traceback for clients that disconnect
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        for collection in self.collections.values():
            for shard in collection.shards:
                shard.close()
        self._folder.cleanup()

    def answer(self, request: Request, size: int) -> tuple[int, bytes]:
        """Return status and body of the answer to a request of so many bytes."""
        try:
            if self.key and request.key != self.key:
                return 401, b"Must provide an API key or an Authorization bearer token"
            if size > ROOM:
                raise Refusal(413, "Payload too large")
            with self._lock:
                result = self._do(request)
        except Refusal as refusal:
            return refusal.status, json.dumps({"status": {"error": str(refusal)}, "time": 0.0}).encode()
        except Exception as error:  # what the engine, or this server, does not take
            message = {"error": f"Format error in JSON body: {error!r}"}
            return 400, json.dumps({"status": message, "time": 0.0}).encode()
        return 200, json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()

    def _do(self, request: Request) -> Any:
        method, path, body, _ = request
        _, root, name, *rest = path.split("/")
        call = " ".join([method, *rest])
        if root != "collections":
            raise Refusal(404, f"no such path: {path}")
        if call == "GET exists":
            return {"exists": name in self.collections}
        if call == "PUT":
            if name in self.collections:
                raise Refusal(409, f"Collection `{name}` already exists!")
            folder = Path(self._folder.name, str(len(self.collections)))
            self.collections[name] = StoredCollection(folder, body, self.keeps_metadata)
            return True
        if name not in self.collections:
            raise Refusal(404, f"Not found: Collection `{name}` doesn't exist!")
        return self._do_in(self.collections[name], call, body)

    def _do_in(self, collection: StoredCollection, call: str, body: dict[str, Any]) -> Any:
        if call == "GET":
            return collection.describe()
        if call == "PATCH":
            if collection.metadata is not None:
                collection.metadata |= body["metadata"]
            return True
        if call == "POST points count":
            return {"count": collection.count(body.get("filter"))}
        if call == "POST points":
            wanted, kinds = set(body["ids"]), body["with_vector"]
            return [
                {
                    "id": r["id"],
                    "payload": _part(r["payload"], body["with_payload"]),
                    "vector": _part(r["vector"], kinds),
                }
                for r in collection.records()
                if r["id"] in wanted
            ]
        if call == "POST points scroll":
            records = [r for r in collection.records(body.get("filter")) if r["id"] >= body.get("offset", "")]
            page, others = records[: body["limit"]], records[body["limit"] :]
            points = [{"id": r["id"], "payload": _part(r["payload"], body["with_payload"])} for r in page]
            return {"points": points, "next_page_offset": others[0]["id"] if others else None}
        if call == "POST points query batch":
            return [{"points": collection.query(asked)} for asked in body["searches"]]
        changes = {
            "PUT index": lambda: collection.index(body["field_name"], body["field_schema"]),
            "PUT points": lambda: collection.upsert(body["points"]),
            "POST points delete": lambda: collection.delete(body["filter"]),
            "POST points payload": lambda: collection.set_payload(body["payload"], body["filter"]),
        }
        if call not in changes:
            raise Refusal(404, f"no such call: {call}")
        changes[call]()
        return {"operation_id": 0, "status": "completed"}
