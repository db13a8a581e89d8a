"""What search engines find in the files that embedder.py --engine writes.

Where the engine runs in a Python process, it does: Milvus Lite (pip install pymilvus milvus-lite), Qdrant's engine.
Of the others the documented arithmetic is replayed on the files: how weights are rounded, which documents match, and
what is added up. With a jar of Anserini, Anserini itself runs, and Lucene, which it carries, searches as OpenSearch and
Elasticsearch make it do.
"""

import json
import re
import subprocess
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge
import scipy.sparse

from utils.export.engines.base import COLLECTION, HITS
from utils.export.engines.vespa import SCALE as VESPA_SCALE
from utils.export.engines.vespa import SCHEMA, TERMS
from utils.records import ENGINE_VECTOR

Hits = list[tuple[str, float]]  # ids and scores of the HITS best documents, best first
Search = Callable[[str, str, str], list[Hits]]  # index definition, file of documents, file of queries -> each query's
Weights = Mapping[str, float]
FEATURES = Path(__file__).with_name("LuceneFeatures.java")


def replay_lucene(definition: str, documents: str, queries: str) -> list[Hits]:
    """Search as Lucene's FeatureField does: a document's weight is a float32 whose last 15 bits are cut off, a query is
    a disjunction of linear functions of them, and their sum, of doubles, is a float32.

    https://github.com/apache/lucene/blob/releases/lucene/9.12.0/lucene/core/src/java/org/apache/lucene/document/FeatureField.java
    """
    mapping = json.loads(definition)["mappings"]["properties"][ENGINE_VECTOR]
    if mapping not in ({"type": "rank_features"}, {"type": "sparse_vector", "index_options": {"prune": False}}):
        raise ValueError(f"no such field is replayed: {mapping}")
    ids, weights = _read_bulk(documents)
    cut = [{term: float(_first_bits(weight)) for term, weight in vector.items()} for vector in weights]
    return _best(ids, cut, list(map(_lucene_query, queries.splitlines())))


def run_lucene(jar: str, documents: str, queries: str) -> list[Hits]:
    """Search with Lucene's own FeatureField."""
    ids, weights = _read_bulk(documents)
    with tempfile.TemporaryDirectory() as folder:
        for name, vectors in (("documents", weights), ("queries", map(_lucene_query, queries.splitlines()))):
            lines = ("\t".join(f"{term} {weight}" for term, weight in vector.items()) for vector in vectors)
            Path(folder, name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        command = ["java", "-Dfile.encoding=UTF-8", "-cp", jar, str(FEATURES), folder, str(HITS)]
        found = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    pairs = ([hit.split(" ") for hit in line.split("\t") if hit] for line in found.splitlines())
    return [[(ids[int(place)], float(score)) for place, score in row] for row in pairs]


def _read_bulk(documents: str) -> tuple[list[str], list[Weights]]:
    lines = documents.splitlines()
    ids = [json.loads(line)["index"]["_id"] for line in lines[::2]]
    weights = [json.loads(line)[ENGINE_VECTOR] for line in lines[1::2]]
    for vector in weights:
        if any("." in term or weight <= 0 for term, weight in vector.items()):
            raise ValueError("Lucene's mappers refuse terms with dots, and weights that are not above 0")
    return ids, weights


def _lucene_query(line: str) -> Weights:
    """Return the weights in any of the three queries."""
    ((kind, query),) = json.loads(line)["query"].items()
    if kind == "match_none":
        return {}
    if kind == "neural_sparse":
        return query[ENGINE_VECTOR]["query_tokens"]
    if kind == "sparse_vector":
        if query["prune"] or query["field"] != ENGINE_VECTOR:
            raise ValueError("the query is of another field, or pruned")
        return query["query_vector"]
    clauses = [clause["rank_feature"] for clause in query["should"]]
    return {clause["field"].removeprefix(f"{ENGINE_VECTOR}."): clause["boost"] for clause in clauses}


def _first_bits(weight: float) -> np.float32:
    return (np.array(weight, np.float32).view(np.int32) >> 15 << 15).view(np.float32)[()]


def replay_vespa(definition: str, documents: str, queries: str, integers: bool = False) -> list[Hits]:
    """Search as Vespa does: dotProduct finds the documents that have one of the query's terms, and the rank profile
    adds up the products of the two tensors' float32 cells or, with `integers`, is dotProduct's own sum.

    https://docs.vespa.ai/en/reference/query-language-reference.html#dotproduct
    """
    if "sum(query(splade) * attribute(splade_vector))" not in definition:
        raise ValueError("the schema ranks in another way")
    puts = [json.loads(line) for line in documents.splitlines()]
    ids = [put["put"].split("::", 1)[1] for put in puts]
    sets, cells = ([put["fields"][name] for put in puts] for name in (TERMS, ENGINE_VECTOR))
    bodies = [json.loads(line) for line in queries.splitlines()]
    terms = [{k: int(w) for k, w in re.findall(r"(\d+):(\d+)", body["terms"])} for body in bodies]
    found = [{name for name, _ in row} for row in _best(ids, sets, terms, limit=len(ids))]
    if integers:
        rows = _best(ids, sets, terms)
        return [[(name, score / VESPA_SCALE**2) for name, score in row] for row in rows]
    tensors = [
        {k: float(w) for k, w in re.findall(r"\{term:(\d+)\}:([^,}]+)", body[f"input.query({SCHEMA})"])}
        for body in bodies
    ]
    ranked = _best(ids, cells, tensors, limit=len(ids))
    return [[hit for hit in row if hit[0] in names][:HITS] for row, names in zip(ranked, found)]


def replay_anserini(definition: str, documents: str, queries: str) -> list[Hits]:
    """Search as Anserini does with -impact -pretokenized: a term's frequency in the document, times how often the query
    has it.

    https://github.com/castorini/anserini/blob/master/src/main/java/io/anserini/search/similarity/ImpactSimilarity.java
    """
    lines = [json.loads(line) for line in documents.splitlines()]
    topics = [line.split("\t")[1].split() for line in queries.splitlines()]
    return _best([line["id"] for line in lines], [line["vector"] for line in lines], list(map(Counter, topics)))


def run_anserini(jar: str, documents: str, queries: str) -> list[Hits]:
    """Search with Anserini itself, version 0.22.1 or another with the same flags."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, name) for name in ("documents", "index", "topics", "run")}
        paths["documents"].mkdir()
        (paths["documents"] / "documents.jsonl").write_text(documents, encoding="utf-8")
        paths["topics"].write_text(queries, encoding="utf-8")
        index = (
            f"-collection JsonVectorCollection -generator DefaultLuceneDocumentGenerator -input {paths['documents']} "
        )
        index += f"-index {paths['index']} -threads 1 -impact -pretokenized"
        search = f"-index {paths['index']} -topics {paths['topics']} -topicreader TsvString -output {paths['run']} "
        search += f"-impact -pretokenized -hits {HITS}"
        for tool, flags in (("index.IndexCollection", index), ("search.SearchCollection", search)):
            command = ["java", "-Dfile.encoding=UTF-8", "-cp", jar, f"io.anserini.{tool}", *flags.split()]
            subprocess.run(command, check=True, capture_output=True)
        found: dict[str, Hits] = {line.split("\t")[0]: [] for line in queries.splitlines()}
        for line in paths["run"].read_text(encoding="utf-8").splitlines():
            query, _, document, _, score, _ = line.split(" ")
            found[query].append((document, float(score)))
    return list(found.values())


def run_milvus(definition: str, documents: str, queries: str) -> list[Hits]:
    """Search with Milvus Lite, through pymilvus."""
    from pymilvus import DataType, MilvusClient

    kinds = {"VarChar": DataType.VARCHAR, "JSON": DataType.JSON, "SparseFloatVector": DataType.SPARSE_FLOAT_VECTOR}
    made = json.loads(definition)
    schema = MilvusClient.create_schema(auto_id=made["schema"]["autoId"])
    for field in made["schema"]["fields"]:
        options = {"is_primary": field.get("isPrimary", False), **field.get("elementTypeParams", {})}
        schema.add_field(field["fieldName"], kinds[field["dataType"]], **options)
    (index,) = made["indexParams"]
    indexes = MilvusClient.prepare_index_params()
    names = index["fieldName"], index["indexType"], index["indexName"]
    indexes.add_index(*names, metric_type=index["metricType"], params=index["params"])
    with tempfile.TemporaryDirectory() as folder:
        client = MilvusClient(f"{folder}/milvus.db")
        client.create_collection(COLLECTION, schema=schema, index_params=indexes)
        for lines in _batches(documents.splitlines(), 200):
            client.insert(COLLECTION, [json.loads(line) for line in lines])
        found = [_search_milvus(client, json.loads(line)) for line in queries.splitlines()]
        client.close()
    return found


def _search_milvus(client: Any, body: dict[str, Any]) -> Hits:
    vectors = [{int(term): weight for term, weight in vector.items()} for vector in body["data"]]
    parameters = {"metric_type": body["searchParams"]["metricType"], "params": body["searchParams"]["params"]}
    options = {"anns_field": body["annsField"], "limit": body["limit"], "output_fields": body["outputFields"]}
    (row,) = client.search(body["collectionName"], data=vectors, search_params=parameters, **options)
    return [(hit["id"], float(hit["distance"])) for hit in row]


def run_qdrant(definition: str, documents: str, queries: str) -> list[Hits]:
    """Search with Qdrant's engine, without its server."""
    ((name, options),) = json.loads(definition)["sparse_vectors"].items()
    datatype = getattr(qdrant_edge.VectorStorageDatatype, options["index"]["datatype"].capitalize())
    modifier = {"none": None, "idf": qdrant_edge.Modifier.Idf}[options["modifier"]]
    parameters = {name: qdrant_edge.EdgeSparseVectorParams(datatype=datatype, modifier=modifier)}
    with tempfile.TemporaryDirectory() as folder:
        config = qdrant_edge.EdgeConfig(vectors=None, sparse_vectors=parameters, wal_enabled=False)
        shard = qdrant_edge.EdgeShard.create(folder, config)
        points = [json.loads(line) for line in documents.splitlines()]
        converted = [
            qdrant_edge.Point(
                uuid.UUID(point["id"]), {name: qdrant_edge.SparseVector(**point["vector"][name])}, point["payload"]
            )
            for point in points
        ]
        shard.update(qdrant_edge.UpdateOperation.upsert_points(converted))
        found = [_search_qdrant(shard, json.loads(line)) for line in queries.splitlines()]
        shard.close()
    return found


def _search_qdrant(shard: Any, body: dict[str, Any]) -> Hits:
    nearest = qdrant_edge.Query.Nearest(qdrant_edge.SparseVector(**body["query"]), using=body["using"])
    hits = shard.query(qdrant_edge.QueryRequest(limit=body["limit"], query=nearest, with_payload=body["with_payload"]))
    return [(hit.payload["id"], hit.score) for hit in hits]


def _best(
    ids: Sequence[str], documents: Sequence[Weights], queries: Sequence[Weights], limit: int = HITS
) -> list[Hits]:
    """Return the documents with the highest dot products above 0, of equal ones the first."""
    columns: dict[str, int] = {}
    stored, asked = (_stack(vectors, columns) for vectors in (documents, queries))
    stored.resize(len(documents), len(columns))
    scores = (asked @ stored.T).toarray().astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
    return [
        [(ids[place], float(row[place])) for place in places if row[place] > 0] for row, places in zip(scores, order)
    ]


def _stack(vectors: Sequence[Weights], columns: dict[str, int]) -> scipy.sparse.csr_array:
    """Return vectors as rows of float64; terms that are new get the next column."""
    starts = np.cumsum([0, *map(len, vectors)])
    places = [columns.setdefault(term, len(columns)) for vector in vectors for term in vector]
    weights = np.array([weight for vector in vectors for weight in vector.values()], np.float64)
    return scipy.sparse.csr_array((weights, np.array(places, np.int64), starts), shape=(len(vectors), len(columns)))


def _batches(lines: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(lines), size):
        yield lines[start : start + size]


REPLAYS: dict[str, Search] = {
    "opensearch": replay_lucene,
    "elasticsearch": replay_lucene,
    "elasticsearch-rank-features": replay_lucene,
    "vespa": replay_vespa,
    "milvus": run_milvus,
    "qdrant": run_qdrant,
    "anserini": replay_anserini,
}
