"""embedder.py and test_queries.py with an index on a server."""

import json
import sys

import pytest
from conftest import fails_with_one_line, run
from qdrant_server import Fault

MODEL = ("--model-dir", "splade-tiny", "--device", "cpu", "--precision", "float32")


def embed(qdrant, *options):
    return run("embedder.py", "--index-url", qdrant.url, *options)


def test_a_folder_is_kept_on_a_server_and_searched_without_it(qdrant, docs, tmp_path, monkeypatch):
    qdrant.key = "secret"
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    given = (*MODEL, "--input-file", docs, "--collection", "trucks", "--shards", 2, "--upsert-points", 3)
    outputs = [embed(qdrant, *given)]
    assert "documents: 7 new\n" in outputs[0].stdout and f"-> {qdrant.url}/collections/trucks\n" in outputs[0].stdout
    (docs / "brakes.txt").write_text("The brakes need new pads.")
    (docs / "tyres.rst").unlink()
    outputs.append(embed(qdrant, *given[2:], "--prune"))  # the collection knows its model
    assert "documents: 1 changed and encoded anew, 5 unchanged\n" in outputs[1].stdout
    assert "1 documents removed that the input does not have: tyres.rst" in outputs[1].stdout
    outputs.append(embed(qdrant, "--collection", "trucks", "--delete", "lights.html", "none"))
    assert "1 documents removed\nnot in the index: none\n5 documents in 5 passages; BM25" in outputs[2].stdout
    collection = qdrant.collections["trucks"]
    assert len(collection.shards) == 2 and collection.metadata["model_name"] == "splade-tiny"

    out = tmp_path / "hits.json"
    search = ("--index-url", qdrant.url, "--collection", "trucks", *MODEL[2:], "--output-file", out)
    lines = (
        "mirrors of a truck\n:explain 1\n:more 1\n:filter truck=none\nmirrors\n:filter id=brakes.txt\nnew pads\nquit\n"
    )
    outputs.append(run("test_queries.py", *search, stdin=lines))
    shown = outputs[3].stdout
    assert "mirror-1, passage 1 of 1\nMirrors\nAdjust both mirrors before you drive." in shown, outputs[3]
    assert "words of both, by BM25: mirrors" in shown and "No document that the filter lets through" in shown
    records = json.loads(out.read_text())
    hits = [[(hit["id"], hit["index"]) for hit in record["results"]] for record in records]
    assert hits[0][0] == ("mirror-1", "mirror-1") and hits[1:] == [[], [("brakes.txt", "brakes.txt")]]
    assert records[0]["results"][0]["metadata"] == {"truck": "T 7"}
    outputs.append(run("test_queries.py", *search, "--query", "new pads", "--search", "bm25", "--filter", "truck=T 7"))
    assert outputs[4].returncode == 0 and json.loads(out.read_text())[0]["results"] == []

    suggest = ("--suggest-synonyms", tmp_path / "synonyms.txt")
    outputs.append(run("test_queries.py", "--index-url", qdrant.url, "--collection", "trucks", *suggest))
    assert "no abbreviation is defined in 5 documents" in outputs[5].stdout

    assert {request.key for request in qdrant.requests} == {"secret"}
    assert not any("secret" in done.stdout + done.stderr for done in outputs)
    monkeypatch.setenv("QDRANT_API_KEY", "wr0ng")
    refused = run("test_queries.py", *search, "--query", "brakes")
    fails_with_one_line(refused, f"{qdrant.url}: the server takes no such API key (401); set QDRANT_API_KEY")
    assert "wr0ng" not in refused.stdout + refused.stderr


def test_a_prompt_outlives_a_server_that_fails(qdrant, docs):
    embed(qdrant, *MODEL, "--input-file", docs)
    answer, searches = qdrant.answer, []

    def fail_once(request, size):
        searches.extend([request] if request.path.endswith("/query/batch") else [])
        if len(searches) == 2:  # the first one is before the prompt
            return 500, b"{}"
        return answer(request, size)

    qdrant.answer = fail_once
    done = run("test_queries.py", "--index-url", qdrant.url, *MODEL, "--retries", 0, stdin="oil\noil\n:explain 1\n")
    assert done.returncode == 0, done.stderr
    assert f"query> {qdrant.url}: it answers 500; given up after 1 try\n" in done.stdout
    assert done.stdout.count("Rank 1 ") == 1 and "in passage" in done.stdout


@pytest.mark.parametrize(
    ("page", "faults", "options", "message"),
    [
        ("<html>Hello</html>", [], [], "no Qdrant server answers there; is the URL right?"),
        (None, [Fault(404)], [], "no Qdrant server answers there (404); is the URL right?"),
        (None, [Fault(500)] * 2, ["--retries", 1], "it answers 500; given up after 2 tries"),
        (None, [Fault(close=True)], ["--retries", 0], "given up after 1 try"),
        (None, [], [], "/collections/documents: no such collection; make it with embedder.py --index-url"),
    ],
)
def test_a_search_that_cannot_be_is_one_line(qdrant, page, faults, options, message):
    qdrant.page = page
    qdrant.faults.extend(faults)
    fails_with_one_line(run("test_queries.py", "--index-url", qdrant.url, *MODEL, *options), f"{qdrant.url}", message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index-url", "localhost:6333"], "'localhost:6333' is no URL of a server, such as http://localhost:6333"),
        (["--index-url", "http://me:secret@here"], "must not hold a name or a key: set QDRANT_API_KEY"),
        (["--index-url", "http://127.0.0.1:1", "--retries", "0"], "http://127.0.0.1:1: [Errno 111] Connection refused"),
        (["--index-url", "http://here", "--index-dir", "index"], "not allowed with argument"),
        (["--index-url", "http://here", "--rebuild"], "--rebuild has no effect without --index-dir"),
        (["--index-dir", "index", "--shards", "2"], "--shards has no effect without --index-url"),
        (["--index-url", "http://here", "--queries"], "--queries has no effect with --index-url"),
    ],
)
def test_bad_flags_are_one_line(docs, arguments, message):
    done = run("embedder.py", "--input-file", docs, *MODEL, *arguments)
    fails_with_one_line(done, message)
    assert "secret" not in done.stderr


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "utils.search.collection", None)  # as if it could not be imported
    done = run("test_queries.py", "--index-url", "http://here", *MODEL)
    fails_with_one_line(done, "--index-url needs: pip install qdrant-client")
