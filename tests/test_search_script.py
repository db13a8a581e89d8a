"""test_queries.py: search at a prompt, for one query, and from Python."""

import json

import pytest
from conftest import fails_with_one_line, run

from test_queries import load_splade_model, retrieve_documents
from utils.documents.reading import read_documents
from utils.search.scorers import open_reranker
from utils.splade import packing

SCRIPT = "test_queries.py"
DOCUMENTS = [
    "The engine burns diesel fuel.",
    "",
    "Bread is baked from flour and water.",
    "The capital of France is Paris.",
]


@pytest.fixture(scope="module")
def loaded():
    return load_splade_model("splade-tiny", "cpu")


def test_hits_are_ranked_with_the_terms_that_matched(loaded):
    results = retrieve_documents("what is the capital of france?", DOCUMENTS, *loaded, top_k=3)
    assert results[0]["index"] == 3 and results[0]["snippet"] == DOCUMENTS[3]
    assert [result["rank"] for result in results] == list(range(1, len(results) + 1))
    assert results == sorted(results, key=lambda result: -result["score"])
    words, parts = zip(*results[0]["terms"])
    assert {"capital", "france"} <= set(words[:3])
    assert sum(parts) == pytest.approx(1) and list(parts) == sorted(parts, reverse=True)


def test_scores_are_the_dot_products_of_the_vectors(loaded):
    model = loaded[1]
    query, document = model.encode_query("diesel engine"), model.encode(DOCUMENTS)[0]
    there = dict(zip(document.indices.tolist(), document.values.tolist()))
    expected = sum(value * there.get(index, 0) for index, value in zip(query.indices.tolist(), query.values.tolist()))
    best = retrieve_documents("diesel engine", DOCUMENTS, *loaded, top_k=1)[0]
    assert best["score"] == pytest.approx(expected, rel=1e-3)


def test_documents_are_encoded_once_for_many_queries(loaded, monkeypatch):
    model, encoded = loaded[1], []
    encode = type(model).encode_stream

    def encode_and_note(self, texts, *options, **named):
        yield from encode(self, (encoded.append(text) or text for text in texts), *options, **named)

    monkeypatch.setattr(type(model), "encode_stream", encode_and_note)
    documents = [*DOCUMENTS, "one more"]
    for query in ("engine", "bread", "paris"):
        retrieve_documents(query, list(documents), *loaded)
    assert encoded == documents
    retrieve_documents("engine", [*documents, "changed"], *loaded)
    assert "changed" in encoded


def test_an_empty_query_and_no_documents_find_nothing(loaded):
    assert retrieve_documents("", DOCUMENTS, *loaded) == []
    assert retrieve_documents("engine", [], *loaded) == []


def test_arguments_that_cannot_be_are_named(loaded):
    with pytest.raises(ValueError, match="`top_k` must be a whole number of at least 1, not 0"):
        retrieve_documents("engine", DOCUMENTS, *loaded, top_k=0)
    with pytest.raises(TypeError, match="documents must be a list of strings, not one string"):
        retrieve_documents("engine", DOCUMENTS[0], *loaded)
    with pytest.raises(TypeError, match=r"documents\[4\] must be a string, not NoneType"):
        retrieve_documents("engine", [*DOCUMENTS, None], *loaded)
    with pytest.raises(TypeError, match="query must be a string, not NoneType"):
        retrieve_documents(None, DOCUMENTS, *loaded)
    with pytest.raises(TypeError, match="query must be a string, not bytes"):
        loaded[1].encode_query(b"engine")
    with pytest.raises(ValueError, match="`threads` must be"):
        load_splade_model("splade-tiny", "cpu", threads=0)


def test_bytes_that_are_not_utf8_end_no_search(docs, tmp_path):
    out = tmp_path / "hits.json"
    options = ["--model-dir", "splade-tiny", "--docs-file", docs, "--output-file", out]
    done = run(SCRIPT, *options, "--query", "coffee at a caf\udce9")
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())[0]["query"] == "coffee at a caf\ufffd"
    done = run(SCRIPT, *options, stdin="oil \udcff level\nmirrors\n")
    assert done.returncode == 0, done.stderr
    assert [record["query"] for record in json.loads(out.read_text())] == ["oil \ufffd level", "mirrors"]


def test_one_query_from_the_shell(docs, tmp_path):
    out = tmp_path / "hits.json"
    done = run(SCRIPT, "--model-dir", "splade-tiny", "--docs-file", docs, "--query", "tread of a tyre", "--top-k", 2,
               "--output-file", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Rank 1 (Score:" in done.stdout and "matched: " in done.stdout and "%" in done.stdout
    hits = json.loads(out.read_text())[0]
    assert hits["query"] == "tread of a tyre" and hits["results"][0]["id"] == "tyres.rst" and len(hits["results"]) == 2


def test_a_hit_has_the_metadata_of_its_document(docs, tmp_path):
    out = tmp_path / "hits.json"
    options = ["--docs-file", docs, "--query", "mirrors", "--top-k", 1, "--output-file", out]
    done = run(SCRIPT, "--model-dir", "splade-tiny", *options)
    assert "\n  truck: T 7\n" in done.stdout
    hit = json.loads(out.read_text())[0]["results"][0]
    assert hit["id"] == "mirror-1" and hit["metadata"] == {"truck": "T 7"}


def test_the_first_query_at_the_prompt_is_not_the_models_first(docs, monkeypatch):
    order, trace = [], packing.trace_forward
    monkeypatch.setattr(packing, "trace_forward", lambda model: order.append("traced") or trace(model))
    monkeypatch.setattr("builtins.input", lambda prompt: order.append("asked") or ("oil" if len(order) < 3 else "quit"))
    done = run(SCRIPT, "--model-dir", "splade-tiny", "--docs-file", docs, "--device", "cpu", "--precision", "float32")
    assert done.returncode == 0 and order == ["traced", "asked", "asked"]


def test_the_prompt_asks_again_until_quit(docs):
    done = run(SCRIPT, "--model-dir", "splade-tiny", "--docs-file", docs, stdin="oil\n\nmirrors\nquit\nnever asked\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("query> ") == 4 and done.stdout.count(" ms to search)") == 2
    assert "mirror-1" in done.stdout
    assert run(SCRIPT, "--model-dir", "splade-tiny", "--docs-file", docs, stdin="oil\n").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--docs-file", "none.json"], "no such file"),
        ([], "one of the arguments --docs-file --index-dir --index-url is required"),
        (["--index-dir", "{docs}"], "no index in this folder; make one with embedder.py --index-dir"),
        (["--docs-file", "{docs}", "--filter", "truck"], "filter 'truck': expected a field"),
        (["--docs-file", "{docs}", "--filter", "color=red", "--query", "oil"], "have id, truck"),
        (["--docs-file", "{docs}", "--rerank-model", "splade-tiny"], "'splade-tiny' is no cross-encoder"),
        (["--docs-file", "{docs}", "--rerank-model", "{docs}/none"], "no such model folder"),
        (["--docs-file", "{docs}", "--rerank-depth", "9"], "--rerank-depth has no effect without --rerank-model"),
        (["--index-dir", "{docs}", "--language", "de"], "--language has no effect without --docs-file"),
        (["--docs-file", "{docs}", "--query", " "], "argument --query: must not be empty"),
        (["--docs-file", "{docs}/broken.json", "--output-file", "{docs}/broken.json"], "name another output file"),
        (["--docs-file", "{docs}", "--top-k", "0"], "at least 1"),
        (["--docs-file", "{docs}", "--model-dir", "{docs}"], "no config.json"),
        (["--docs-file", "{docs}/broken.json"], "line 2: broken JSON"),
        (["--docs-file", "{docs}/NOTES"], "NOTES: a file without a suffix"),
    ],
)
def test_bad_input_is_one_line(docs, arguments, message):
    (docs / "broken.json").write_text('["a",\n "b" "c"]')
    (docs / "NOTES").write_text("some text")
    arguments = [argument.format(docs=docs) for argument in arguments]
    fails_with_one_line(run(SCRIPT, *(["--model-dir", "splade-tiny", *arguments])), message)


def test_a_cross_encoder_scores_the_best_hits_anew(docs, tmp_path, cross_encoder):
    out = tmp_path / "hits.json"
    search = ["--docs-file", docs, "--model-dir", "splade-tiny", "--query", "oil of the engine", "--output-file", out]

    def hits(*options):
        done = run(SCRIPT, *search, *options)
        assert done.returncode == 0, done.stderr
        return json.loads(out.read_text())[0]["results"]

    before = hits("--top-k", 3)
    reranked = hits("--rerank-model", cross_encoder, "--rerank-depth", 3, "--top-k", 10)
    assert {hit["id"] for hit in before} == {hit["id"] for hit in reranked} and len(reranked) == 3
    score = open_reranker(str(cross_encoder), "cpu")
    texts = {document.id: document.full_text for document in read_documents(docs).documents}
    scores = score("oil of the engine", [texts[hit["id"]] for hit in reranked]).tolist()
    assert [hit["score"] for hit in reranked] == pytest.approx(scores, abs=1e-3) and scores == sorted(scores)[::-1]
    assert hits("--rerank-model", cross_encoder, "--rerank-depth", 3, "--top-k", 1) == reranked[:1]


def test_a_query_is_searched_by_its_heaviest_terms(docs, tmp_path, loaded):
    out = tmp_path / "hits.json"
    query = "how much air do the brakes need?"
    search = ["--docs-file", docs, "--model-dir", "splade-tiny", "--query", query, "--search", "splade"]
    terms = {}
    for count in (None, 2):
        options = ["--query-terms", count] if count else []
        assert run(SCRIPT, *search, "--output-file", out, *options).returncode == 0
        terms[count] = {word for hit in json.loads(out.read_text())[0]["results"] for word, _ in hit["terms"]}
    model = loaded[1]
    vector = model.encode_query(query)
    heaviest = model.decode_terms(vector.indices[(-vector.values).argsort()[:2]])
    assert terms[2] == set(heaviest) and len(terms[None]) > 2
    fails_with_one_line(run(SCRIPT, *search[:-1], "bm25", "--query-terms", 2), "--query-terms has no effect without")


def test_synonyms_expand_queries(tmp_path):
    (tmp_path / "docs.json").write_text(json.dumps(DOCUMENTS))
    synonyms = tmp_path / "synonyms.txt"
    synonyms.write_text("ICE => engine that burns diesel\n")
    options = [
        "--model-dir",
        "splade-tiny",
        "--docs-file",
        tmp_path / "docs.json",
        "--query",
        "xyzzy ICE",
        "--top-k",
        1,
    ]
    matched = [run(SCRIPT, *options, *more).stdout.partition("matched: ")[2] for more in ((), ("--synonyms", synonyms))]
    assert "diesel" not in matched[0] and "diesel" in matched[1] and "engine" in matched[1]
    synonyms.write_text("alone\n")
    fails_with_one_line(run(SCRIPT, *options, "--synonyms", synonyms), "synonyms.txt: line 1: expected")


def test_a_hit_in_a_long_document_shows_the_passage(tmp_path, loaded):
    end = "Parrots eat sunflower seeds."
    documents = ["The engine needs oil and a new filter. " * 80 + end, "Parrots are birds.", *DOCUMENTS]
    hits = retrieve_documents("what seeds do parrots eat?", documents, *loaded, top_k=9)
    assert hits[0]["index"] == 0 and hits[0]["terms"][0][0] in ("seed", "seeds", "parrot", "parrots")
    assert len({hit["index"] for hit in hits}) == len(hits)
    engine = retrieve_documents("engine oil", documents, *loaded, top_k=2)
    assert [hit["index"] for hit in engine] == [0, 2] and engine[0]["snippet"].startswith("The engine needs oil")
    (tmp_path / "docs.jsonl").write_text(json.dumps({"title": "Pets", "text": f"{'word ' * 600}\n\n{end}"}))
    options = ["--model-dir", "splade-tiny", "--docs-file", tmp_path / "docs.jsonl", "--query", "sunflower"]
    shown = run(SCRIPT, *options).stdout
    assert "1 of 1 documents are longer than 512 tokens and are searched by their passages\n" in shown
    assert f"\n  Pets:\n  {end}\n" in shown


def test_what_the_model_cuts_is_said(tmp_path, short_model):
    (tmp_path / "docs.json").write_text(json.dumps(["brake " * 20, "a lamp"]))
    options = ["--model-dir", short_model, "--docs-file", tmp_path / "docs.json"]
    done = run(SCRIPT, *options, "--query", "how do I change the lamp of my car")
    assert "1 of 2 documents are longer than 12 tokens and are searched by their passages" in done.stdout
    assert "The query is longer than 6 tokens and was cut." in done.stdout
    assert "query is longer" not in run(SCRIPT, *options, "--query", "lamp").stdout
