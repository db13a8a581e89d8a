"""Encoding through the public class and the script."""

import json
import re
import shutil

import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import fails_with_one_line, run

from embedder import HybridEmbedder, SpladeEmbedder, add_documents, open_documents
from utils.search.document_index import DocumentIndex
from utils.splade.opening import open_encoder

SCRIPT = "embedder.py"


def test_embeddings_are_plain_lists_in_input_order(tiny):
    embedder = SpladeEmbedder(model_dir="splade-tiny", device="cpu", precision="float32")
    long, empty, short = embedder.generate_sparse_embeddings(["a long text about cars " * 9, "", "cars"])
    assert empty == {"indices": [], "values": []}
    assert json.loads(json.dumps(short)) == short
    assert short["indices"] == sorted(short["indices"]) == tiny.encode(["cars"])[0].indices.tolist()
    assert len(short["indices"]) == len(short["values"]) > 0 and min(short["values"]) > 0
    assert long["indices"] != short["indices"] and len(long["indices"]) == len(long["values"]) > 0


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("text", "texts must be a list of strings, not one string"),
        (b"text", "texts must be a list of strings, not bytes"),
        (None, "texts must be a list of strings, not NoneType"),
        (["a", None], r"texts\[1\] must be a string, not NoneType"),
        ([3], r"texts\[0\] must be a string, not int"),
        ((text for text in ("a", "b", ["c"])), r"texts\[2\] must be a string, not list"),
    ],
)
def test_what_is_not_text_is_refused_by_name(texts, message):
    embedder = SpladeEmbedder("splade-tiny", device="cpu")
    with pytest.raises(TypeError, match=f"^{message}$"):
        next(embedder.stream_sparse_embeddings(texts))
    if not hasattr(texts, "send"):  # a generator is used up
        with pytest.raises(TypeError, match=f"^{message}$"):
            embedder.generate_sparse_embeddings(texts)
        with pytest.raises(TypeError, match=f"^{message.replace('texts', 'queries')}$"):
            embedder.generate_query_embeddings(texts)


def test_lone_surrogates_are_encoded_as_replacement_characters():
    embedder = SpladeEmbedder("splade-tiny", device="cpu")
    texts, replaced = ["a caf\udce9", "oil"], ["a caf\ufffd", "oil"]
    for encode in (embedder.generate_sparse_embeddings, embedder.generate_query_embeddings):
        assert encode(texts) == encode(replaced)
    done = run(SCRIPT, "--model-dir", "splade-tiny", "--text", texts[0])
    assert done.returncode == 0 and "a caf?" in done.stdout


def test_the_default_precision_stays_close_to_float32(tiny):
    default = SpladeEmbedder("splade-tiny", device="cpu").generate_sparse_embeddings(["jet engines burn fuel"])[0]
    exact = dict(zip(*(column.tolist() for column in tiny.encode(["jet engines burn fuel"])[0])))
    found = dict(zip(default["indices"], default["values"]))
    assert max(exact.values()) > 1
    for index in found.keys() | exact.keys():
        assert found.get(index, 0) == pytest.approx(exact.get(index, 0), abs=0.1)


def test_a_folder_becomes_a_file_of_vectors(docs, tmp_path):
    out = tmp_path / "vectors.jsonl"
    done = run(SCRIPT, "--model-dir", "splade-tiny", "--input-file", docs, "--output-file", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows][:2] == ["brakes.txt", "engine.md"] and len(rows) == 7
    assert rows[4] == {"id": "more.json#2", "indices": [], "values": []}
    assert rows[5]["id"] == "mirror-1" and rows[5]["metadata"] == {"truck": "T 7"}


def test_texts_are_shown_with_their_heaviest_terms():
    done = run(SCRIPT, "--model-dir", "splade-tiny", "--text", "diesel engine", "--top-terms", 3)
    assert "diesel" in done.stdout and "engine" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --text --input-file is required"),
        (["--text", "a", "--input-file", "b"], "not allowed with argument"),
        (["--text", "a", "--top-terms", "20", "--output-file", "b"], "--top-terms has no effect with --output-file"),
        (["--text", "a", "--queries", "--batch-size", "8"], "--batch-size has no effect with --queries; leave it out"),
        (["--input-file", "none"], "no such file"),
        (["--text", "a", "--batch-size", "0"], "at least 1"),
        (["--text", "a", "--max-length", "2"], "--max-length must be at least 3, not 2"),
        (["--input-file", __file__, "--output-file", __file__], "it is read, too, and would be overwritten"),
        (["--text", "a", "--output-file", ""], "argument --output-file: must not be empty"),
        (["--text", "a", "--max-length", "513"], "--max-length: 513 tokens are more than there can be here, 512"),
        (["--text", "a", "--device", "cuda:9"], "not available"),
        (["--text", "a", "--model-dir", "./none"], "no such model folder"),
        (["--text", "a", "--output-file", "/proc/none/x"], "cannot write"),
        (["--text", "a", "--index-dir", "b"], "an index is of documents with ids: name --input-file"),
        (["--output-file", "a", "--index-dir", "b", "--input-file", "c"], "not allowed with argument"),
        (["--text", "a", "--prune"], "--prune has no effect without --index-dir"),
        (["--index-dir", "{here}", "--delete", "b", "--prune"], "--prune has no effect without --input-file"),
        (["--index-dir", "{here}", "--delete", "b"], "no index in this folder; make one with embedder.py --index-dir"),
        (["--index-dir", "{here}", "--rebuild"], "no index in this folder"),
        (["--index-dir", "{here}", "--input-file", __file__], "a .py file"),
        (["--index-dir", "{here}/a/b"], "one of the arguments --text --input-file is required"),
        (["--text", "a", "--words"], "--words has no effect without --output-file"),
        (["--text", "a", "--words", "--output-file", "a.npz"], "--words has no effect with a .npz file"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path):
    arguments = [argument.format(here=tmp_path) for argument in arguments]
    fails_with_one_line(run(SCRIPT, *(["--model-dir", "splade-tiny", *arguments])), message)
    assert not list(tmp_path.iterdir())


def test_queries_are_encoded_as_search_does():
    embedder, encoder = SpladeEmbedder("splade-tiny", device="cpu"), open_encoder("splade-tiny", "cpu")
    found = embedder.generate_query_embeddings(["red fruit", "word " * 500, ""])
    for query, row in zip(["red fruit", "word " * 500, ""], found, strict=True):
        expected = encoder.encode_query(query)
        assert row["indices"] == expected.indices.tolist()
        assert row["values"] == pytest.approx(expected.values.tolist())
    with pytest.raises(TypeError, match="list of strings"):
        embedder.generate_query_embeddings("red fruit")


def test_the_models_own_limit_holds_and_what_it_cuts_is_counted(short_model):
    fits, longer = "the engine of this truck burns diesel and oil now", "the engine " * 6
    embedder = SpladeEmbedder(short_model, device="cpu")
    assert embedder.generate_sparse_embeddings([longer]) == embedder.generate_sparse_embeddings([longer + "brakes"])
    assert embedder.encoder.truncated == 1
    embedder.generate_sparse_embeddings([fits, longer, ""] * 2)
    assert embedder.encoder.truncated == 2
    assert SpladeEmbedder(short_model, max_length=512, device="cpu").encoder.max_length == 512
    texts = ["--text", fits, "--text", longer]
    done = run(SCRIPT, "--model-dir", short_model, *texts)
    assert "1 of 2 texts are longer than 12 tokens and are cut there" in done.stdout
    done = run(SCRIPT, "--model-dir", short_model, "--text", fits, "--text", "diesel engine", "--queries")
    assert "1 of 2 queries are longer than 6 tokens and are cut there" in done.stdout
    assert "cut there" not in run(SCRIPT, "--model-dir", short_model, *texts, "--max-length", 40).stdout


def test_a_folder_is_indexed_with_an_estimate(docs, tiny, monkeypatch, capfd):
    monkeypatch.setattr("utils.console.LINE_SECONDS", 0)
    add_documents(DocumentIndex(tiny), open_documents(docs, []), [], None, prune=False)
    assert re.search(r"^encoding: 100%.* 7/7 \[", capfd.readouterr().err, re.MULTILINE)


def test_an_index_is_made_changed_and_searched_from_the_shell(docs, tmp_path):
    index, out = tmp_path / "index", tmp_path / "hits.json"
    make = ["--model-dir", "splade-tiny", "--input-file", docs, "--index-dir", index]
    done = run(SCRIPT, *make)
    assert done.returncode == 0, done.stderr
    assert "\ndocuments: 7 new\n" in f"\n{done.stdout}" and "7 documents in 7 passages" in done.stdout
    search = ["--model-dir", "splade-tiny", "--index-dir", index, "--query", "mirrors", "--output-file", out]
    done = run("test_queries.py", *search, "--filter", "truck=T 7")
    assert done.returncode == 0, done.stderr
    (hit,) = json.loads(out.read_text())[0]["results"]
    assert hit["id"] == "mirror-1" and hit["metadata"] == {"truck": "T 7"}
    (docs / "brakes.txt").write_text("Bleed the radiators in autumn.")
    (docs / "engine.md").unlink()
    (docs / "empty.txt").touch()
    done = run(SCRIPT, *make)
    assert "empty.txt: holds no text" in done.stdout
    assert "documents: 1 changed and encoded anew, 5 unchanged\n" in done.stdout
    assert "1 documents are not in the input, --prune removes them: engine.md" in done.stdout
    done = run(SCRIPT, *make, "--prune")
    assert (
        "1 documents removed that the input does not have: engine.md" in done.stdout and "6 documents in" in done.stdout
    )
    done = run(SCRIPT, "--input-file", docs, "--index-dir", index)
    assert "documents: 6 unchanged\n" in done.stdout  # with the index's own model
    done = run("test_queries.py", "--index-dir", index, "--query", "mirrors")
    assert "Rank 1" in done.stdout and "mirror-1" in done.stdout, done.stderr
    done = run(SCRIPT, "--index-dir", index, "--delete", "mirror-1", "none")
    assert "1 documents removed" in done.stdout and "not in the index: none" in done.stdout
    shutil.rmtree(index / "engine")
    fails_with_one_line(
        run("test_queries.py", *search), f"embedder.py --index-dir {index} --rebuild makes its files anew"
    )
    done = run(SCRIPT, "--index-dir", index, "--rebuild")
    assert done.returncode == 0, done.stderr
    for kind, query in (("hybrid", "radiators"), ("bm25", "radiators"), ("splade", "heating in autumn")):
        assert run("test_queries.py", *search, "--query", query, "--search", kind).returncode == 0
        assert json.loads(out.read_text())[0]["results"][0]["id"] == "brakes.txt"


def test_what_cannot_be_read_is_not_pruned(docs, tmp_path):
    make = ["--model-dir", "splade-tiny", "--input-file", docs, "--index-dir", docs / "index", "--max-length", 64]
    assert run(SCRIPT, *make).returncode == 0
    (docs / "more.json").write_text('[{"id": "mirror-1", "text"')
    (docs / "engine.md").unlink()
    done = run(SCRIPT, *make, "--prune")
    assert done.returncode == 0 and "skipped index/: written by these scripts" in done.stdout
    assert "nothing removed, since what could not be read may be among it: engine.md" in done.stdout
    done = run("test_queries.py", "--model-dir", "splade-tiny", "--index-dir", docs / "index", "--query", "mirrors")
    assert done.returncode == 0 and "mirror-1" in done.stdout  # whatever the limit


def test_vectors_are_written_as_words_and_as_a_matrix(docs, tmp_path, tiny):
    lines, words, matrix = (tmp_path / name for name in ("vectors.jsonl", "words.jsonl", "vectors.npz"))
    for out, *options in ((lines,), (words, "--words"), (matrix,)):
        done = run(SCRIPT, "--model-dir", "splade-tiny", "--input-file", docs, "--output-file", out, *options)
        assert done.returncode == 0, done.stderr
    expected = [json.loads(line) for line in lines.read_text().splitlines()]
    loaded, ids = scipy.sparse.load_npz(matrix), json.loads(np.load(matrix, allow_pickle=False)["ids"].tobytes())
    assert ids == [row["id"] for row in expected] and loaded.shape == (len(ids), tiny.vocabulary_size)
    for number, (row, line) in enumerate(zip(expected, words.read_text().splitlines(), strict=True)):
        assert loaded[[number]].indices.tolist() == row["indices"]
        assert loaded[[number]].data.tolist() == pytest.approx(row["values"])
        by_word = json.loads(line)["words"]
        assert list(by_word.values()) == pytest.approx(row["values"])
        assert tiny.tokenizer.convert_tokens_to_ids(list(by_word)) == row["indices"]


def test_one_long_id_costs_a_matrix_its_own_bytes_alone(tmp_path):
    names = ["a" * 10_000, "é\n", *map(str, range(500))]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps({"id": name, "text": ""}) + "\n" for name in names))
    options = ["--input-file", tmp_path / "docs.jsonl", "--output-file", tmp_path / "v.npz"]
    assert run(SCRIPT, "--model-dir", "splade-tiny", *options).returncode == 0
    ids = np.load(tmp_path / "v.npz")["ids"]
    assert ids.nbytes < 20_000 and json.loads(ids.tobytes()) == names


def test_matrices_are_compared_and_decoded(tiny):
    embedder = SpladeEmbedder("splade-tiny", device="cpu", precision="float32")
    texts = ["Jet engines burn fuel.", "", "Bread is baked."]
    documents, queries = embedder.encode_document(texts), embedder.encode_query(["engine", "baking bread"])
    assert documents.shape == (3, tiny.vocabulary_size) and queries.shape == (2, tiny.vocabulary_size)
    vector = tiny.encode(texts)[0]
    assert documents[[0]].indices.tolist() == vector.indices.tolist()
    scores = embedder.similarity(queries, documents)
    assert scores.argmax(1).tolist() == [0, 2] and scores[:, 1].tolist() == [0, 0]
    assert scores == pytest.approx(queries.toarray() @ documents.toarray().T)
    few = embedder.encode_document(texts, max_active_dims=5)
    assert np.diff(few.indptr).tolist() == [5, 0, 5]
    assert sorted(few[[0]].data) == sorted(vector.values)[-5:]
    decoded = embedder.decode(documents, top_k=2)
    assert [len(words) for words in decoded] == [2, 0, 2] and decoded[2][0][0] == "bread"
    assert decoded[0] == embedder.decode(documents)[0][:2]
    assert embedder.encode_query([]).shape == (0, tiny.vocabulary_size)
    with pytest.raises(ValueError, match="`max_active_dims` must be a whole number of at least 1, not 0"):
        embedder.encode_query(["a"], max_active_dims=0)
    with pytest.raises(TypeError, match="texts must be a list of strings, not one string"):
        embedder.encode_document("a text")


def test_dense_and_hybrid_vectors_compare_queries_with_documents():
    texts = ["The heater needs two minutes before it blows warm air.", "Check the tire pressure.", ""]
    hybrid = HybridEmbedder("splade-tiny", "minilm", device="cpu")
    documents, queries = hybrid.encode_document(texts), hybrid.encode_query(["how long until it is hot?", "tire"])
    dense = hybrid.dense.similarity(queries.dense, documents.dense)
    np.testing.assert_allclose(np.linalg.norm(documents.dense, axis=1), 1, rtol=1e-5)
    assert documents.dense.shape == (3, 384) and dense.argmax(axis=1).tolist() == [0, 1]
    sparse = hybrid.sparse.similarity(queries.sparse, documents.sparse)
    shares = [part / part.max(axis=1, keepdims=True) for part in (sparse, np.maximum(dense, 0))]
    np.testing.assert_allclose(hybrid.similarity(queries, documents), sum(shares) / 2, rtol=1e-5)
    np.testing.assert_allclose(hybrid.similarity(queries, documents, sparse_weight=1), shares[0], rtol=1e-5)
    assert not hybrid.similarity(hybrid.encode_query([""]), documents, sparse_weight=1).any()
    with pytest.raises(TypeError, match="texts must be a list of strings"):
        hybrid.dense.encode_document("one text")


def test_sparse_tensors_hold_compare_and_decode_as_matrices_do(tiny):
    embedder = SpladeEmbedder("splade-tiny", device="cpu", precision="float32")
    texts, queries = ["Jet engines burn fuel.", "", "Bread is baked."], ["engine", "baking bread"]
    matrix = embedder.encode_document(texts)
    documents = embedder.encode_document(texts, convert_to_sparse_tensor=True)
    asked = embedder.encode_query(queries, convert_to_sparse_tensor=True)
    assert documents.layout == torch.sparse_coo and documents.shape == (3, tiny.vocabulary_size)
    assert documents.to_dense().numpy() == pytest.approx(matrix.toarray()) and documents.is_coalesced()
    scores = embedder.similarity(asked, documents)
    expected = asked.to_dense() @ documents.to_dense().T
    assert torch.allclose(scores, expected, rtol=1e-4) and scores.argmax(1).tolist() == [0, 2]
    assert torch.equal(embedder.similarity(asked.to_sparse_csr(), matrix), scores)
    assert embedder.decode(documents) == embedder.decode(matrix) == embedder.decode(documents.to_sparse_csr())
    assert embedder.encode_query([], convert_to_sparse_tensor=True).shape == (0, tiny.vocabulary_size)
    few = embedder.encode_document(texts, max_active_dims=5, convert_to_sparse_tensor=True)
    assert few.values().shape == (10,)
