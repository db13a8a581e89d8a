"""The files that embedder.py --engine writes: all documents with their texts and vectors, and what is refused."""

import json
import re

import numpy as np
import pytest
from conftest import fails_with_one_line, run
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from benchmarks.engine_replays import REPLAYS
from utils.documents.reading import read_documents
from utils.export.engines.base import shortest_floats
from utils.export.engines.registry import ENGINES
from utils.export.engines.terms import term_names
from utils.export.vector_files import open_engine
from utils.records import Document
from utils.splade.vectors import EMPTY_VECTOR, SparseVector

VECTOR = SparseVector(np.array([1012, 3194], np.int32), np.array([0.25, 1.5], np.float32))  # "." and "engine"
QUERY = Document(id="q", text="")


def stored(engine, text):
    """The documents in an engine's file, with their vectors by the terms' names or ids."""
    records = [json.loads(line) for line in text.splitlines()]
    if engine == "vespa":
        fields = [{"id": record["put"].removeprefix("id:splade:splade::"), **record["fields"]} for record in records]
        return [field | {"metadata": json.loads(field["metadata"])} for field in fields]
    if engine == "qdrant":
        return [record["payload"] | {"splade_vector": record["vector"]["splade_vector"]} for record in records]
    if engine in ("milvus", "anserini"):
        return records
    return [
        {"id": action["index"]["_id"], **source} for action, source in zip(records[::2], records[1::2], strict=True)
    ]


@pytest.mark.parametrize("name", ENGINES)
def test_a_folder_becomes_what_an_engine_loads(name, docs, tiny, tmp_path):
    out = tmp_path / "out" / "all.jsonl"
    options = ["--model-dir", "splade-tiny", "--device", "cpu", "--precision", "float32", "--engine", name]
    done = run("embedder.py", *options, "--input-file", docs, "--output-file", out)
    assert done.returncode == 0, done.stderr
    engine, known = open_engine(name, tiny), read_documents(docs).documents
    found = stored(name, out.read_text())
    assert [document["id"] for document in found] == [document.id for document in known] and len(known) == 7
    assert {"id": "mirror-1", "title": "Mirrors", "metadata": {"truck": "T 7"}}.items() <= found[5].items()
    text = "contents" if name == "anserini" else "text"
    assert [document[text] for document in found] == [document.text for document in known]
    for document, vector in zip(known, tiny.encode([document.full_text for document in known])):
        assert engine.format_document(document, vector) in out.read_text()
    beside = sorted(path.name for path in out.parent.iterdir())
    if name == "anserini":
        assert beside == ["all.jsonl"]
    else:
        definition = out.with_name("all_index.sd" if name == "vespa" else "all_index.json")
        assert beside == ["all.jsonl", definition.name]
        assert definition.read_text() == engine.index_definition() + "\n" and engine.index_definition() in done.stdout


@pytest.mark.parametrize("name", ENGINES)
def test_queries_become_a_request_a_line(name, tiny, tmp_path):
    queries = [Document(id="q1", text="diesel engine"), Document(id="q2", text="red brakes")]
    lines = (json.dumps({"_id": query.id, "text": query.text}) for query in queries)
    (tmp_path / "asked.jsonl").write_text("\n".join(lines))
    options = ["--model-dir", "splade-tiny", "--device", "cpu", "--precision", "float32", "--queries", "--engine", name]
    out = tmp_path / "out" / "queries.jsonl"
    done = run("embedder.py", *options, "--input-file", tmp_path / "asked.jsonl", "--output-file", out)
    assert done.returncode == 0, done.stderr
    vectors = [tiny.encode_query(query.text) for query in queries]
    assert out.read_text().splitlines() == list(map(open_engine(name, tiny).format_query, queries, vectors))
    assert list(out.parent.iterdir()) == [out] and "definition" not in done.stdout


@pytest.mark.parametrize("name", ENGINES)
def test_a_query_without_terms_finds_nothing_and_a_document_without_terms_is_not_found(name, tiny):
    engine = open_engine(name, tiny)
    known = [(Document(id="none", text=""), EMPTY_VECTOR), (Document(id="one", text="a"), VECTOR)]
    asked = [(QUERY, EMPTY_VECTOR), (QUERY.model_copy(update={"id": "r"}), VECTOR)]
    documents = "".join(f"{engine.format_document(*pair)}\n" for pair in known)
    queries = "".join(f"{engine.format_query(*pair)}\n" for pair in asked)
    found = REPLAYS[name](engine.index_definition(), documents, queries)
    unit = 10_000 if name == "anserini" else 1
    assert found == [[], [("one", 2.3125 * unit)]]


def test_a_query_without_terms_is_one_that_engines_take(tiny):
    for name in ("opensearch", "elasticsearch", "elasticsearch-rank-features"):  # an empty `bool` would match all
        assert json.loads(open_engine(name, tiny).format_query(QUERY, EMPTY_VECTOR))["query"] == {"match_none": {}}
    yql = json.loads(open_engine("vespa", tiny).format_query(QUERY, EMPTY_VECTOR))["yql"]
    assert yql == "select * from splade where false"
    assert open_engine("anserini", tiny).format_query(QUERY, EMPTY_VECTOR) == "q\t#30522"  # one behind the last


def test_every_term_has_a_name_of_its_own_without_dots_and_spaces(tiny):
    tokens = ["a", ".", "a.b", " ", "", "\u2003", "#3", "#x", "##4", "\u2581and", "*"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, "a"))
    )
    expected = ["a", "#1", "#2", "#3", "#4", "#5", "#6", "#x", "##4", "\u2581and", "*", "#11", "#12"]
    assert term_names(tokenizer, len(tokens) + 2) == expected
    names = term_names(tiny.tokenizer, tiny.vocabulary_size)
    assert len(set(names)) == len(names) == 30522
    assert [name for name in names if re.fullmatch(r"#\d+", name)] == ["#1012", "#2133", "#29625"]  # . ... ##.


def test_weights_are_written_with_as_few_digits_as_float32_needs():
    values = np.array([0.1, 1 / 3, 2.5, 1e-5, 3], np.float32)
    written = shortest_floats(values)
    assert written == [0.1, 0.33333334, 2.5, 1e-5, 3.0]
    assert (np.array(written, np.float32) == values).all()


def test_lucene_keeps_nine_bits_of_a_documents_weight_and_all_of_a_querys(tiny):
    engine = open_engine("opensearch", tiny)
    weights = {1 + 1 / 512: 1.0, 1 + 3 / 512: 1 + 2 / 512, 3.999: 511 / 128, 0.3: 307 / 1024}
    query = engine.format_query(QUERY, VECTOR)
    for weight, kept in weights.items():
        vector = SparseVector(np.array([3194], np.int32), np.array([weight], np.float32))
        lines = engine.format_document(Document(id="a", text=""), vector), query
        ((_, score),) = REPLAYS["opensearch"](engine.index_definition(), *lines)[0]
        assert score == pytest.approx(kept * 1.5, rel=1e-7)


def test_nothing_is_pruned_unasked(tiny):
    engines = {name: open_engine(name, tiny) for name in ("elasticsearch", "milvus", "qdrant")}
    definition = {name: json.loads(engine.index_definition()) for name, engine in engines.items()}
    body = {name: json.loads(engine.format_query(QUERY, VECTOR)) for name, engine in engines.items()}
    assert definition["elasticsearch"]["mappings"]["properties"]["splade_vector"]["index_options"] == {"prune": False}
    assert body["elasticsearch"]["query"]["sparse_vector"]["prune"] is False
    assert body["milvus"]["searchParams"]["params"] == {"drop_ratio_search": 0.0}
    assert definition["milvus"]["indexParams"][0]["params"] == {"inverted_index_algo": "DAAT_MAXSCORE"}
    assert definition["qdrant"]["sparse_vectors"]["splade_vector"]["modifier"] == "none"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "solr", "--output-file", "a.jsonl"], "argument --engine: invalid choice: 'solr'"),
        (["--engine", "milvus"], "--engine has no effect without --output-file"),
        (["--engine", "milvus", "--output-file", "a.npz"], "--engine has no effect with a .npz file"),
        (["--engine", "milvus", "--words", "--output-file", "a.jsonl"], "--words has no effect with --engine"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(arguments, message):
    fails_with_one_line(run("embedder.py", "--text", "a", *arguments), message)


def test_the_definition_does_not_overwrite_what_is_read(tmp_path):
    (tmp_path / "v_index.json").write_text('["the engine"]')
    options = ["--input-file", tmp_path / "v_index.json", "--output-file", tmp_path / "v.jsonl", "--engine", "milvus"]
    fails_with_one_line(run("embedder.py", *options), "v_index.json: it is read, too, and would be overwritten")


@pytest.mark.parametrize(
    ("engine", "record", "message"),
    [
        ("opensearch", {"id": "é" * 257}, "its id has 514 bytes, and this engine takes 512; give it a shorter one"),
        ("milvus", {"metadata": {"a": "b" * 66_000}}, "its metadata have 66,009 bytes, and Milvus takes 65,536"),
        *((name, {"metadata": {"a": float("nan")}}, "metadata hold NaN or an infinite number") for name in ENGINES),
    ],
)
def test_what_an_engine_does_not_take_is_one_line(engine, record, message, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "text": "engine", **record}) + "\n")
    options = ["--model-dir", "splade-tiny", "--device", "cpu", "--engine", engine]
    files = ["--input-file", tmp_path / "in.jsonl", "--output-file", tmp_path / "out.jsonl"]
    fails_with_one_line(run("embedder.py", *options, *files), f"document '{record.get('id', 'a')[:40]}", message)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_what_an_engine_cannot_hold_of_a_text_is_left_out(tiny):
    document = Document(id="my file", title="é" * 40_000, text="a\ufffeb\U0001ffffc")
    row = json.loads(open_engine("milvus", tiny).format_document(document, VECTOR))
    assert row["title"] == "é" * 32_767
    fields = json.loads(open_engine("vespa", tiny).format_document(document, VECTOR))["fields"]
    assert fields["text"] == "a b c" and fields["splade_terms"] == {"1012": 250, "3194": 1500}
    engine = open_engine("anserini", tiny)
    line = json.loads(engine.format_document(document, VECTOR))
    assert line["id"] == "my%20file" and line["vector"] == {"#1012": 25, "engine": 150}
    tiny_weight = SparseVector(VECTOR.indices, np.array([0.004, 0.02], np.float32))
    assert engine.format_query(document, tiny_weight) == "my%20file\tengine engine"
    tiny_weight = SparseVector(VECTOR.indices, np.array([0.0004, 0.0026], np.float32))
    fields = json.loads(open_engine("vespa", tiny).format_document(document, tiny_weight))["fields"]
    assert fields["splade_terms"] == {"1012": 1, "3194": 3}  # a term that is 0 would not be found


def test_an_engines_file_among_documents_is_none_of_them(docs):
    before = read_documents(docs).documents
    for name in ("milvus", "opensearch", "vespa", "qdrant", "anserini"):
        options = ["--model-dir", "splade-tiny", "--device", "cpu", "--input-file", docs / "more.jsonl"]
        done = run("embedder.py", *options, "--engine", name, "--output-file", docs / f"{name}.jsonl")
        assert done.returncode == 0, done.stderr
    assert read_documents(docs).documents == before
