"""Encoding through the public class and the script."""

import json

import pytest
from conftest import fails_with_one_line, run

from embedder import SpladeEmbedder

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
    ],
)
def test_bad_input_is_one_line(arguments, message):
    fails_with_one_line(run(SCRIPT, *(["--model-dir", "splade-tiny", *arguments])), message)


def test_queries_are_encoded_as_search_does(tiny):
    embedder = SpladeEmbedder("splade-tiny", device="cpu")
    found = embedder.generate_query_embeddings(["red fruit", "word " * 500, ""])
    for query, row in zip(["red fruit", "word " * 500, ""], found, strict=True):
        expected = tiny.encode_query(query)
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
