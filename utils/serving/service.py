"""The endpoints: the page, search, judgments of hits, and sparse vectors as text-embeddings-inference gives them."""

import asyncio
import base64
import contextlib
import copy
import hashlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from utils.records import replace_surrogates
from utils.search.filters import parse_filters
from utils.search.judgments import record_judgment
from utils.search.searcher import SEARCHES, DocumentSearch
from utils.serving.answers import Query, answer_queries
from utils.serving.batching import BatchWorker, Overloaded
from utils.serving.gate import Access, Gate, error_body
from utils.serving.metrics import Metrics
from utils.serving.variants import FIRST, Outcome, assign_variant, session_id
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import SparseVector

PAGE = Path(__file__).with_name("page.html")
TOGETHER, CAPACITY = 32, 128  # queries that are encoded together, and that wait
MAX_QUERY = 2000  # characters
MAX_TOP_K = 100
MAX_INPUTS, EMBEDDINGS = 32, 16  # texts of a request for vectors, and requests that wait for theirs
SESSION_COOKIE, SESSION_SECONDS = "splade_session", 30 * 24 * 3600
SESSION = re.compile(r"[0-9a-f]{32}")

Text = Annotated[str, Field(min_length=1, max_length=MAX_QUERY)]


class Body(BaseModel):
    """What is posted: JSON of these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SearchBody(Body):
    query: Text
    top_k: int = Field(default=10, ge=1, le=MAX_TOP_K)
    filters: list[Annotated[str, Field(max_length=600)]] = Field(default=[], max_length=20)
    search: Literal[SEARCHES] | None = None


class FeedbackBody(Body):
    query: Text
    passage: Annotated[int, Field(ge=0, lt=2**63)] | Annotated[str, Field(max_length=36)]  # an index's key
    liked: bool
    variant: Literal["A", "B"] | None = None


class EmbedBody(BaseModel):
    """As text-embeddings-inference has it. `prompt_name` says what is encoded, as in sentence-transformers."""

    inputs: str | list[str]
    truncate: bool | None = False
    truncation_direction: Literal["Right", "right"] = "Right"
    prompt_name: Literal["query", "document"] | None = None


class Served(NamedTuple):
    """What is served.

    Attributes:
        searches: by variant: one, or two models.
        share: of the sessions that get the second one; None to show both side by side.
        feedback_file: where judgments go.
    """

    searches: dict[str, DocumentSearch]
    share: float | None
    feedback_file: Path

    def variants_of(self, session: str) -> list[str]:
        """Return which variants answer a session."""
        return list(self.searches) if self.share is None else [assign_variant(session, self.share)]


def build_app(served: Served, access: Access) -> FastAPI:
    """Return the application; its work ends with its lifespan."""
    searches, metrics = served.searches, Metrics()
    first = searches[FIRST]
    outcome = Outcome({variant: (s.model.name, s.model.fingerprint) for variant, s in searches.items()})
    outcome.read(served.feedback_file)
    for variant, search in searches.items():
        metrics.documents.labels(variant).set(len(search.index))
    kinds = [kind for kind in SEARCHES if all(_can_search(search, kind) for search in searches.values())]
    page, policy = _read_page()

    @contextlib.asynccontextmanager
    async def work(app: FastAPI) -> Iterator[None]:
        app.state.queries = BatchWorker(answer_queries(searches, metrics), TOGETHER, CAPACITY)
        app.state.texts = BatchWorker(lambda bodies: (_embed(first.model, body) for body in bodies), 1, EMBEDDINGS)
        yield
        for worker in (app.state.queries, app.state.texts):
            await asyncio.to_thread(worker.close)

    # The pages of OpenAPI that come with FastAPI load scripts from elsewhere.
    app = FastAPI(title="SPLADE search", docs_url=None, redoc_url=None, lifespan=work)
    _answer_errors(app)

    def session_of(request: Request) -> str:
        known = request.cookies.get(SESSION_COOKIE, "")
        return known if SESSION.fullmatch(known) else secrets.token_hex(16)

    def keep_session(response: Any, session: str) -> Any:
        if len(searches) > 1:
            options = {"max_age": SESSION_SECONDS, "httponly": True, "samesite": "lax"}
            response.set_cookie(SESSION_COOKIE, session, **options)
        return response

    @app.get("/", include_in_schema=False)
    async def show_page(request: Request) -> HTMLResponse:
        response = HTMLResponse(page, headers={"Content-Security-Policy": policy})
        return keep_session(response, session_of(request))

    @app.get("/info")
    async def info(request: Request) -> JSONResponse:
        shown = served.variants_of(session_of(request))
        models = [{"variant": name, "model": Path(searches[name].model.name).name} for name in shown]
        index = {"documents": len(first.index), "fields": sorted(first.index.fields)}
        return JSONResponse(index | {"searches": kinds, "search": first.kind, "variants": models})

    @app.post("/search")
    async def search(body: SearchBody, request: Request) -> JSONResponse:
        session, kind = session_of(request), body.search or first.kind
        if kind not in kinds:
            raise HTTPException(422, f"field 'search': what is served has {', '.join(kinds)}")
        where = [*parse_filters(body.filters), *first.where]
        query = Query(body.query, body.top_k, kind, where, served.variants_of(session))
        results = await asyncio.wrap_future(app.state.queries.submit(query))
        return keep_session(JSONResponse({"query": body.query, "results": results}), session)

    @app.post("/feedback")
    def feedback(body: FeedbackBody, request: Request) -> JSONResponse:
        session = session_of(request)
        variant, shown = body.variant or FIRST, served.variants_of(session)
        if variant not in shown or (len(searches) > 1 and not body.variant):
            reason = "field 'variant': send that of the hit, and the cookie of the session that it was shown to"
            raise HTTPException(409, reason)
        beside = {"variant": variant, "session": session_id(session)} if len(searches) > 1 else {}
        judged = body.query, body.passage, body.liked
        line = record_judgment(served.feedback_file, searches[variant], *judged, **beside)
        metrics.judgments.labels(variant, str(body.liked).lower()).inc()
        if beside:
            outcome.count(line)
        return keep_session(JSONResponse({"recorded": True}), session)

    @app.get("/outcome")
    def show_outcome() -> dict[str, Any]:
        return outcome.summary()

    @app.post("/embed_sparse")
    async def embed_sparse(body: EmbedBody) -> JSONResponse:
        return JSONResponse(await asyncio.wrap_future(app.state.texts.submit(body)))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    def show_metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    asked = {"allow_methods": ["GET", "POST"], "allow_headers": ["authorization", "content-type"]}
    app.add_middleware(CORSMiddleware, allow_origins=list(access.origins), **asked)
    paths = {route.path for route in app.routes}
    app.add_middleware(Gate, access=access, metrics=metrics, paths=paths)
    return app


def _can_search(search: DocumentSearch, kind: str) -> bool:
    """Return whether a kind of search is to be had; the dense model is opened now, rather than for the first query."""
    try:
        copy.copy(search).search_by(kind)
    except (ValueError, OSError, ImportError):
        return False
    return True


class _Rejected(ValueError):
    """A request for vectors that cannot be answered, with its status and type of error."""

    def __init__(self, status: int, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.kind = status, kind


def _embed(model: Encoder, body: EmbedBody) -> list[list[dict[str, Any]]] | _Rejected:
    """Return the vectors of texts, each as [{"index", "value"}, ...]."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if not texts or not all(texts):
        return _Rejected(400, "Empty", "`inputs` cannot be empty")
    if len(texts) > MAX_INPUTS:
        return _Rejected(413, "Validation", f"batch size {len(texts)} > maximum allowed batch size {MAX_INPUTS}")
    query = body.prompt_name == "query"
    limit = model.query_max_length if query else model.max_length
    longest = max(model.count_tokens(texts))
    if longest > limit and not body.truncate:
        return _Rejected(413, "Validation", f"`inputs` must have at most {limit} tokens, not {longest}")
    return [_as_objects(vector) for vector in (model.encode_queries if query else model.encode)(texts)]


def _as_objects(vector: SparseVector) -> list[dict[str, Any]]:
    return [{"index": index, "value": value} for index, value in zip(vector.indices.tolist(), vector.values.tolist())]


def _read_page() -> tuple[bytes, str]:
    """Return the page, and the policy that lets its own style and script run and nothing else."""
    page = PAGE.read_bytes()
    own = {}
    for tag in (b"style", b"script"):
        (content,) = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
        own[tag.decode()] = base64.b64encode(hashlib.sha256(content).digest()).decode()
    policy = [f"{tag}-src 'sha256-{digest}'" for tag, digest in own.items()]
    policy += ["connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    return page, "; ".join(["default-src 'none'", *policy])


def _answer_errors(app: FastAPI) -> None:
    """Answer errors as `error_body`, in one line, without what was sent."""

    @app.exception_handler(RequestValidationError)
    async def wrong_body(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, (str, int)))
        reason = f"field '{place}': {first['msg']}" if place and first["type"] != "json_invalid" else first["msg"]
        return JSONResponse(error_body(replace_surrogates(reason[:300])), 422)

    @app.exception_handler(HTTPException)
    async def no_such_path(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(error_body(str(error.detail)), error.status_code, headers=error.headers)

    @app.exception_handler(_Rejected)
    async def rejected(request: Request, error: _Rejected) -> JSONResponse:
        return JSONResponse(error_body(str(error), error.kind), error.status)

    @app.exception_handler(ValueError)
    async def cannot_be(request: Request, error: ValueError) -> JSONResponse:
        return JSONResponse(error_body(str(error)), 422)

    @app.exception_handler(Overloaded)
    async def overloaded(request: Request, error: Overloaded) -> JSONResponse:
        status = 429 if request.url.path == "/embed_sparse" else 503  # text-embeddings-inference's
        body = error_body("too many requests wait; ask again in a second", "Overloaded")
        return JSONResponse(body, status, headers={"Retry-After": "1"})

    @app.exception_handler(OSError)
    async def disk_fails(request: Request, error: OSError) -> JSONResponse:
        return JSONResponse(error_body(f"not recorded: {error.strerror or 'the disk fails'}", "Backend"), 500)

    @app.exception_handler(Exception)
    async def fails(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(error_body("the server failed; its log says why", "Backend"), 500)
