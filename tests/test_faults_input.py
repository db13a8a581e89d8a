"""Whatever bytes a file holds, each reader returns a result, or raises what the scripts show as one line."""

import datetime
import functools
import json

import pypandoc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from utils.documents.chunking import chunk_documents
from utils.documents.reading import SUFFIXES, read_documents
from utils.evaluation.reading import read_collection
from utils.journal import Journal
from utils.models import load_config
from utils.records import Document, read_examples, write_examples
from utils.search.synonyms import Synonyms
from utils.training_data.bootstrap import Terms, WrittenPassage
from utils.training_data.chat_replies import parse_last_object
from utils.training_data.feedback import read_feedback_examples
from utils.training_data.model_queries import Written, examples_from_answers, load_template

# The same inputs in each run; a reader that takes longer than the deadline for such a small file hangs.
small_inputs = settings(
    max_examples=60,
    deadline=datetime.timedelta(seconds=20),
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MARKUP = (
    "# ", "\n", "\r", "\n\n", "```", "````", "~~~", "    ", "\t", "- ", "> ", "| a | b |\n|---|---|\n", "---\n",
    "title: x\n", "===\n", ".. code-block:: c\n", "::\n", "[a](b)", "![](x)", "<", ">", "<p>", "</p>", "<form>",
    "<table><tr><td>", "<pre>", "<script>", "<!--", "<![CDATA[", "<?xml version='1.0' encoding='utf-16'?>",
    "<meta charset='gbk'>", "&amp;", "&#0;", "&#x110000;", "&#xd800;", "\x00", "\ufeff", "\u2028", "\x1b", "é",
    "漢字。", "ไทย", "\U0001f600", '"', "'", ",", ";", "id", "text", "content", "{", "}", "[", "]", '{"cells": ',
    "%PDF-1.7\n", "PK\x03\x04", "From: a\n", "Content-Type: multipart/mixed; boundary=x\n", "= Title\n", "----\n",
    "#+BEGIN_SRC c\n", "* ", "word " * 40,
)  # fmt: skip
MARKDOWN = """# The pump

It moves *water*, see [the valve](valve.md).

- Open it slowly.
- Close it at night.

| part | price |
|------|-------|
| seal | 3     |

```python
def stop():
    return 1
```
"""
MAIL = f"From: a@example.org\nSubject: The pump\nContent-Type: text/plain; charset=utf-8\n\n{MARKDOWN}"
CSV = 'id,title,content,year\n1,The pump,"It moves water, slowly.",1999\n2,The valve,"Open ""it"".",2001\n'
encodings = st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "cp1252", "gbk", "shift_jis"))
marked_up = st.lists(st.sampled_from(MARKUP) | st.text(max_size=8), max_size=40).map("".join)
file_bytes = st.one_of(
    st.binary(max_size=600),
    st.builds(lambda text, encoding: text.encode(encoding, errors="ignore"), marked_up, encodings),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def objects(*fields):
    """Return JSON objects of which the fields may have the type that they should, another, or be missing."""
    texts = st.text(max_size=30)
    lists = st.lists(texts | st.fixed_dictionaries({}, optional={"document": texts, "explanation": values}), max_size=3)
    return st.fixed_dictionaries({}, optional={name: texts | lists | values for name in fields})


def returns_or_raises_one_line(read, path):
    """Read a file: a result, which is returned, or an error that says which file, in words for a user."""
    try:
        return read(path)
    except (ValueError, OSError, ImportError) as error:
        assert path.name in str(error)
        assert "Traceback" not in str(error)
        return None


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
@small_inputs
@given(data=file_bytes)
def test_arbitrary_bytes_as_a_document(suffix, data, tmp_path):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(data)
    found = returns_or_raises_one_line(read_documents, path)
    for document in found.documents if found else ():
        assert Document.model_validate(document.model_dump()) == document
        document.full_text.encode("utf-8")
    if found:
        assert all(chunk.text.strip() for chunk in chunk_documents(found.documents))


@small_inputs
@given(files=st.dictionaries(st.sampled_from(sorted(SUFFIXES)), file_bytes, min_size=2, max_size=6))
def test_a_folder_is_read_around_its_broken_files(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    for suffix, data in files.items():
        (folder / f"broken{suffix}").write_bytes(data)
    (folder / "good.txt").write_text("A whole document among broken ones.")
    documents, skipped = read_documents(folder)
    assert "A whole document among broken ones." in {document.text for document in documents}
    assert all("\n" not in line for line in skipped)


RECORDS = {
    "documents": (read_documents, ("id", "_id", "title", "content", "text", "metadata")),
    "examples": (
        read_examples,
        (
            "query",
            "positive_document",
            "negative_documents",
            "query_id",
            "positive_id",
            "source",
            "query_type",
            "scores",
        ),
    ),
    "feedback": (read_feedback_examples, ("query", "document", "document_id", "liked", "time", "model")),
}


@pytest.mark.parametrize("suffix", (".json", ".jsonl"))
@pytest.mark.parametrize("kind", RECORDS)
@small_inputs
@given(data=st.data())
def test_arbitrary_json_as_records(kind, suffix, data, tmp_path):
    read, fields = RECORDS[kind]
    records = data.draw(st.lists(objects(*fields) | values, max_size=4))
    path = tmp_path / f"file{suffix}"
    lines = "".join(json.dumps(record) + "\n" for record in records)
    path.write_text(json.dumps(records) if suffix == ".json" else lines, encoding="utf-8")
    result = returns_or_raises_one_line(read, path)
    if result is not None and kind == "examples":
        write_examples(tmp_path / "again.jsonl", result)
        assert read_examples(tmp_path / "again.jsonl") == result


def read_bytes_as(kind, path):
    """Read a file of the kind that is no document and no list of records."""
    match kind:
        case "examples":
            return read_examples(path)
        case "feedback":
            return read_feedback_examples(path)
        case "journal":
            return Journal(path, {"work": "test"}, resume=True)
        case "synonyms":
            return Synonyms(path)
        case "template":
            return load_template(str(path))


@pytest.mark.parametrize("kind", ("examples", "feedback", "journal", "synonyms", "template"))
@small_inputs
@given(data=file_bytes | values.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_as_another_file(kind, data, tmp_path):
    path = tmp_path / f"file.{'jsonl' if kind in ('examples', 'feedback', 'journal') else 'txt'}"
    path.write_bytes(data)
    returns_or_raises_one_line(lambda path: read_bytes_as(kind, path), path)


@small_inputs
@given(queries=file_bytes, judgments=file_bytes, corpus=file_bytes)
def test_arbitrary_bytes_as_a_collection(queries, judgments, corpus, tmp_path):
    (tmp_path / "qrels").mkdir(exist_ok=True)
    (tmp_path / "queries.jsonl").write_bytes(queries or b'{"_id": "q", "text": "red"}\n')
    (tmp_path / "corpus.jsonl").write_bytes(corpus)
    (tmp_path / "qrels" / "test.tsv").write_bytes(judgments)
    returns_or_raises_one_line(read_collection, tmp_path)


@small_inputs
@given(judgments=st.lists(st.lists(st.text(max_size=4) | st.floats().map(str), max_size=5).map("\t".join), max_size=5))
def test_arbitrary_judgments(judgments, tmp_path):
    (tmp_path / "qrels").mkdir(exist_ok=True)
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "red"}\n')
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "red"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(["q\td\t1", *judgments]), encoding="utf-8")
    returns_or_raises_one_line(read_collection, tmp_path)


@small_inputs
@given(data=file_bytes | values.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_as_the_config_of_a_model(data, tmp_path):
    (tmp_path / "config.json").write_bytes(data)
    returns_or_raises_one_line(load_config, tmp_path)


@small_inputs
@given(text=marked_up | values.map(json.dumps) | values.map(lambda value: f"Sure: ```json\n{json.dumps(value)}\n```"))
def test_arbitrary_answers_of_a_language_model(text):
    chunk = chunk_documents([Document(id="d", text="The engine burns diesel fuel. Check the oil every week.")])
    for schema in (Written, Terms, WrittenPassage):
        answer = parse_last_object(text, schema)
        assert answer is None or isinstance(answer, schema)
        if isinstance(answer, Written):
            examples_from_answers(chunk, [answer])


BY_PANDOC = {
    ".docx": "docx",
    ".epub": "epub",
    ".org": "org",
    ".rst": "rst",
    ".html": "html",
    ".ipynb": "ipynb",
    ".pptx": "pptx",
}


@pytest.fixture(scope="module")
def whole_document(tmp_path_factory):
    """Returns the bytes of a document with a heading, a list, a table and code, by its suffix."""
    folder = tmp_path_factory.mktemp("whole")

    @functools.cache
    def make(suffix):
        path = folder / f"file{suffix}"
        if suffix == ".pdf":
            with PdfPages(path) as pdf:
                pdf.savefig(Figure())
        elif suffix in BY_PANDOC:
            pypandoc.convert_text(MARKDOWN, suffix[1:], "markdown", outputfile=str(path))
        else:
            path.write_text({".eml": MAIL, ".csv": CSV, ".tsv": CSV.replace(",", "\t")}.get(suffix, MARKDOWN))
        return path.read_bytes()

    return make


@pytest.mark.parametrize("read", [read_documents, read_examples, read_feedback_examples])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_that_is_nested_too_deeply(read, suffix, tmp_path):
    path = tmp_path / f"file{suffix}"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=rf"file\{suffix}: .*nested too deep"):
        read(path)
    (tmp_path / "good.txt").write_text("A whole document.")
    assert [document.text for document in read_documents(tmp_path).documents] == ["A whole document."]


# Of some broken AsciiDoc pandoc makes nothing in all its time.
@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".json", ".jsonl", ".adoc", ".asciidoc"}))
@small_inputs
@given(cut=st.floats(0, 1), at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_document_cut_short_or_with_a_wrong_byte(suffix, cut, at, byte, tmp_path, whole_document):
    data = bytearray(whole_document(suffix))
    data[at % len(data)] = byte
    path = tmp_path / f"file{suffix}"
    path.write_bytes(data[: max(1, round(cut * len(data)))] if cut < 0.9 else data)
    returns_or_raises_one_line(read_documents, path)
