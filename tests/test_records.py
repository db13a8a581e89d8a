"""Reading and writing the files between the stages."""

import json
import tracemalloc

import pytest
from conftest import fails_with_one_line, run

from utils.records import corpus_file, read_examples, read_passages, write_examples

GOOD = {"query": "q", "positive_document": "p", "negative_documents": ["n", {"document": "m", "explanation": "no"}]}


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_mixed_negatives_and_unknown_fields_survive_a_round_trip(tmp_path, name):
    example = GOOD | {"scores": [1.0, 0.5, 0.2], "query_id": "7", "reviewed_by": "ann"}
    source = write(tmp_path / name, json.dumps(example) if name.endswith("l") else [example])
    examples = read_examples(source)
    assert examples[0].negatives == ["n", "m"]
    write_examples(tmp_path / f"copy-{name}", examples)
    text = (tmp_path / f"copy-{name}").read_text()
    assert (json.loads(text) if name.endswith("l") else json.loads(text)[0]) == example


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_document_of_several_examples_is_in_memory_once(tmp_path, name):
    rows = [GOOD, {"query": "r", "positive_document": "m", "negative_documents": [{"document": "p"}, "n"]}]
    rows = json.loads(json.dumps(rows).replace('"m"', '"the sea"').replace('"n"', '"a bay"').replace('"p"', '"a port"'))
    content = "\n".join(map(json.dumps, rows)) if name.endswith("l") else rows
    first, second = read_examples(write(tmp_path / name, content))
    again = [*second.negatives, second.positive_document]
    assert again == ["a port", "a bay", "the sea"]
    assert all(text is known for text, known in zip(again, [first.positive_document, *first.negatives]))


def test_whole_number_ids_are_taken_as_text(tmp_path):
    assert read_examples(write(tmp_path / "a.json", [GOOD | {"query_id": 12}]))[0].query_id == "12"


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.json", '[{"query": "q",\n "positive_document" "p"}]', ["a.json: line 2", "broken JSON"]),
        ("a.jsonl", json.dumps(GOOD) + "\n{oops\n", ["a.jsonl: line 2", "broken JSON"]),
        ("a.json", [GOOD, {"query": "q"}], ["record 2", "positive_document", "required"]),
        ("a.jsonl", "\n" + json.dumps({"positive_document": "p"}), ["line 2", "'query'"]),
        ("a.json", [GOOD | {"negative_documents": [{"text": "x"}]}], ["record 1", "negative_documents"]),
        ("a.json", [GOOD, GOOD | {"negative_documents": ["x", " p "]}], ["record 2", "among its own"]),
        ("a.json", ["text"], ["record 1"]),
        ("a.json", {"query": "q"}, ["not a list"]),
        ("a.json", [], ["holds no examples"]),
        ("a.jsonl", "", ["holds no examples"]),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path, name, content, parts):
    with pytest.raises(ValueError) as error:
        read_examples(write(tmp_path / name, content))
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_file_beside_the_examples_that_is_not_of_them_says_why_it_was_read_and_what_helps(tmp_path):
    file = write(tmp_path / "t.json", [GOOD | {"positive_id": "a"}, {"query": "my own", "positive_document": "mine"}])
    corpus, examples = corpus_file(file), read_examples(file)
    write(corpus, json.dumps({"_id": "1", "title": "", "text": "p"}))
    with pytest.raises(ValueError, match=r"line 1: field 'passage_id': .* beside .*t\.json it holds .* rename it if"):
        read_passages(file, examples)
    lines = [json.dumps({"passage_id": "a", "passage": "p"}), json.dumps({"passage_id": None, "passage": "mine"})]
    write(corpus, lines[0])
    with pytest.raises(ValueError, match="the positive document of 'my own'; add it here as a line of passage_id and"):
        read_passages(file, examples)
    write(corpus, "\n".join(lines))
    assert [passage.passage for passage in read_passages(file, examples)] == ["p", "mine"]


OF_GOOD = b'{"passage_id": "a", "passage": "p"}\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"passage_id": "b", "pass\n', "line 2: broken JSON"),
        (b'["b", "x"]\n', "line 2: is not an object with fields"),
        (b"null\n", "line 2: is not an object with fields"),
        (b'{"passage_id": "b"}\n', "line 2: field 'passage': Field required"),
        (b'{"passage": "x"}\n', "line 2: field 'passage_id': Field required"),
        (b'{"passage_id": "b", "passage": 3}\n', "line 2: field 'passage': Input should be a valid string"),
        (b'{"passage_id": ["b"], "passage": "x"}\n', "line 2: field 'passage_id': Input should be a valid string"),
        (b'{"passage_id": "b", "passage": "gr\xf6\xdfe"}\n', "line 2: not UTF-8 text"),
        (b"[" * 100_000, "line 2: nested too deep"),
    ],
)
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("test_evaluate.py", ["--model-dir", "splade-tiny", "--test-file"]),
        ("train_splade.py", ["--model-name", "splade-tiny", "--val-file"]),
    ],
)
def test_broken_passages_beside_examples_end_a_script_with_one_line(tmp_path, script, arguments, content, said):
    examples = write(tmp_path / "examples.json", [GOOD | {"positive_id": "a"}] * 2)
    corpus_file(examples).write_bytes(OF_GOOD + content)
    if script == "train_splade.py":
        arguments = ["--train-file", examples, "--output-dir", tmp_path / "model", *arguments]
    fails_with_one_line(run(script, *arguments, examples), f"{corpus_file(examples)}: {said}")
    assert not (tmp_path / "model").exists()


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"query": "\xff\xfe"}')
    with pytest.raises(ValueError, match="line 1: not UTF-8"):
        read_examples(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_bytes(b'[{"query": "\xff\xfe"}]')
    with pytest.raises(ValueError, match=r"a\.json: not UTF-8"):
        read_examples(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_halves_of_surrogate_pairs_are_replaced(tmp_path, name):
    half = {name: "a \ud800" for name in ("query", "positive_document", "query_id")}
    example = half | {"negative_documents": ["\ud83d"], "metadata": {"\udfff": ["\ud800 \U0001f600"]}}
    found = read_examples(write(tmp_path / name, json.dumps(example) if name.endswith("l") else [example]))
    write_examples(tmp_path / "copy.json", found)
    copy = json.loads((tmp_path / "copy.json").read_text(encoding="utf-8"))[0]
    assert {copy[name] for name in half} == {"a \ufffd"} and copy["negative_documents"] == ["\ufffd"]
    assert copy["metadata"] == {"\ufffd": ["\ufffd \U0001f600"]}


def test_reading_a_list_takes_twice_its_bytes(tmp_path):
    """The text and the records made from it; the bytes are gone by then."""
    file = write(tmp_path / "a.json", [GOOD | {"positive_document": f"{i} " + "x" * 100_000} for i in range(50)])
    tracemalloc.start()
    try:
        assert len(read_examples(file)) == 50
        assert tracemalloc.get_traced_memory()[1] < 2.2 * file.stat().st_size
    finally:
        tracemalloc.stop()
