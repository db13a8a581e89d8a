"""Each engine, or its documented arithmetic, ranks documents as the exact dot products do."""

import json
import random

import numpy as np
import pytest
import qdrant_client.models as rest
from conftest import ROOT
from qdrant_client import QdrantClient

from benchmarks.engine_replays import REPLAYS, replay_vespa
from utils.export.engines.registry import ENGINES
from utils.export.vector_files import open_engine
from utils.records import Document
from utils.splade.vectors import to_csr

PARTS = ["engine", "brake", "mirror", "heater", "tire", "lamp", "wiper", "clutch", "radio", "filter", "pump", "valve"]
DEEDS = ["clean", "replace", "test", "oil", "drain", "tighten", "cool", "paint", "charge", "weigh"]
# How far a score may be below and above the exact one, as a share of it: Lucene cuts a weight by less than 1/256 of it,
# Vespa's integers and Anserini's round by half a thousandth and half a hundredth of a weight that is 1.
ERRORS = {"opensearch": (1 / 256, 1e-6), "anserini": (0.02, 0.02), "vespa": (1e-6, 1e-6)}
ERRORS |= dict.fromkeys(("elasticsearch", "elasticsearch-rank-features"), ERRORS["opensearch"])
ERRORS |= dict.fromkeys(("milvus", "qdrant"), ERRORS["vespa"])


@pytest.fixture(scope="module")
def collection(tiny):
    """Documents, queries, and the exact scores [queries, documents]."""
    generator = random.Random(0)
    texts = [
        f"{' and '.join(generator.sample(DEEDS, 2))} the {generator.choice(PARTS)} of the truck every "
        f"{generator.randrange(2, 20)} weeks, then look at the {generator.choice(PARTS)}"
        for _ in range(60)
    ]
    documents = [Document(id=f"d{number}", text=text, title="Care") for number, text in enumerate(texts)]
    queries = [Document(id=deed, text=f"how do I {deed} a {part}") for deed, part in zip(DEEDS, PARTS)]
    vectors = tiny.encode([document.full_text for document in documents])
    asked = [tiny.encode_query(query.text) for query in queries]
    scores = (to_csr(asked, tiny.vocabulary_size) @ to_csr(vectors, tiny.vocabulary_size).T).toarray()
    return list(zip(documents, vectors)), list(zip(queries, asked)), scores


def files(engine, collection):
    """The index definition, the documents' file and the queries' file of an engine."""
    parts = zip((engine.format_document, engine.format_query), collection)
    return [engine.index_definition(), *("".join(f"{form(*pair)}\n" for pair in pairs) for form, pairs in parts)]


def check_ranking(found, scores, below, above):
    """Check that each query's ten hits have scores within the bounds, in order, and that none that they miss is sure
    to be better than the last of them."""
    assert len(found) == len(scores)
    for hits, exact in zip(found, scores.astype(np.float64)):
        numbers = [int(name.removeprefix("d")) for name, _ in hits]
        values = [score for _, score in hits]
        assert len(set(numbers)) == 10 and values == sorted(values, reverse=True)
        for number, value in zip(numbers, values):
            assert exact[number] * (1 - below) <= value <= exact[number] * (1 + above)
        assert np.delete(exact, numbers).max() * (1 - below) <= values[-1]


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_finds_the_best_ten(name, tiny, collection):
    found = REPLAYS[name](*files(open_engine(name, tiny), collection))
    if name == "anserini":
        found = [[(document, score / 10_000) for document, score in hits] for hits in found]
    check_ranking(found, collection[2], *ERRORS[name])


def test_vespas_integers_rank_within_their_rounding(tiny, collection):
    found = replay_vespa(*files(open_engine("vespa", tiny), collection), integers=True)
    check_ranking(found, collection[2], 0.002, 0.002)


def test_qdrants_client_takes_the_files_as_its_rest_api_does(tiny, collection):
    definition, documents, queries = files(open_engine("qdrant", tiny), collection)
    asked = rest.CreateCollection.model_validate_json(definition)
    points = [rest.PointStruct.model_validate_json(line) for line in documents.splitlines()]
    requests = [rest.QueryRequest.model_validate_json(line) for line in queries.splitlines()]
    assert [json.loads(line)["id"] for line in documents.splitlines()] == [str(point.id) for point in points]
    client = QdrantClient(":memory:")
    client.create_collection("documents", asked.vectors, sparse_vectors_config=asked.sparse_vectors)
    client.upsert("documents", points)
    answers = [
        client.query_points("documents", r.query, using=r.using, limit=r.limit, with_payload=r.with_payload).points
        for r in requests
    ]
    found = [[(point.payload["id"], point.score) for point in answer] for answer in answers]
    check_ranking(found, collection[2], *ERRORS["qdrant"])
    assert answers[0][0].payload["title"] == "Care"


@pytest.mark.parametrize("name", ["milvus", "qdrant"])
def test_the_guides_python_loads_and_searches(name, tiny, collection, tmp_path, monkeypatch, capsys):
    definition, documents, queries = files(open_engine(name, tiny), collection)
    for file, text in (("vectors_index.json", definition), ("vectors.jsonl", documents), ("queries.jsonl", queries)):
        (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "deploy" / f"{name}.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    for url in ("http://localhost:19530", "http://localhost:6333"):
        code = code.replace(url, "milvus.db" if name == "milvus" else ":memory:")
    exec(code, {})
    rows = [line.split(" ", 2) for line in capsys.readouterr().out.splitlines()]
    exact = collection[2][0]
    assert [float(score) for score, _, _ in rows] == pytest.approx(sorted(exact, reverse=True)[:10], abs=0.006)
    assert rows[0][1:] == [f"d{exact.argmax()}", "Care"]


def test_the_guides_python_formats_a_request():
    page = (ROOT / "docs" / "deploy" / "README.md").read_text(encoding="utf-8")
    found = {}
    exec(page.split("```python\n")[1].split("```")[0].replace("./fine_tuned_splade", "splade-tiny"), found)
    assert json.loads(found["body"])["query"]["neural_sparse"]["splade_vector"]["query_tokens"]["brakes"] > 1


@pytest.mark.parametrize("name", ENGINES)
def test_each_engine_has_a_guide(name):
    folder = ROOT / "docs" / "deploy"
    row = next(
        line for line in (folder / "README.md").read_text(encoding="utf-8").splitlines() if f"[`{name}`]" in line
    )
    page = folder / row.split("](")[1].split(")")[0]
    assert f"--engine {name}" in page.read_text(encoding="utf-8") or name == "elasticsearch-rank-features"
