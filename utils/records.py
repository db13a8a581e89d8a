"""The records that the files between the stages are made of: their fields, and reading and writing lists of them."""

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator

from utils.files import open_atomic

ENGINE_VECTOR = "splade_vector"  # the field of the vector in files for search engines, and so in their indices
# What shows a file to be written by one of the scripts: a line of a page, and fields of records.
REPORT_MARKS = (
    b'<meta name="generator" content="generate_training_data.py">',
    b'<meta name="generator" content="test_evaluate.py">',
)
OUTPUT_FIELDS = (
    {"query", "positive_document"},
    {"passage_id", "passage"},
    {"query", "judged"},
    {"query", "results"},
    {"indices", "values"},
    {ENGINE_VECTOR},
)
SURROGATES = re.compile("[\ud800-\udfff]")
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class Record(BaseModel):
    """Base of all records; unknown fields are kept."""

    model_config = ConfigDict(extra="allow")


class Document(Record):
    """One document. `id` is unique in its collection; `metadata` is what else its source says of it."""

    id: str
    title: str = ""
    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def full_text(self) -> str:
        """Title and text, as a search model encodes them."""
        return f"{self.title}\n{self.text}".strip()


class Chunk(Document):
    """A passage of a document. `headings` are those above it, the outermost first; `metadata` is its document's."""

    document_id: str
    headings: list[str] = Field(default_factory=list)

    @property
    def heading(self) -> str:
        """Nearest heading above its start, "" before the first one."""
        return self.headings[-1] if self.headings else ""

    @property
    def context(self) -> str:
        """Title and headings above the passage, without the nearest, which its text holds."""
        return " > ".join(filter(None, (self.title, *self.headings[:-1])))

    @property
    def full_text(self) -> str:
        return f"{self.context}\n{self.text}".strip()


class Negative(Record):
    """A document that does not answer the query, and why."""

    document: str
    explanation: str = ""


class TrainingExample(Record):
    """A query, a document that answers it, and documents that do not.

    `source` is the id of the document that it was made from, `positive_id` that of the passage. `scores` are a
    teacher's, of the positive document and then of each negative. `metadata` of that document, if it has some, is among
    the further fields.
    """

    query: str
    positive_document: str
    negative_documents: list[str | Negative] = Field(default_factory=list)
    query_id: str | None = None
    positive_id: str | None = None
    source: str | None = None
    query_type: str | None = None
    scores: list[FiniteFloat] | None = None

    @field_validator("query_id", "positive_id", mode="before")
    @classmethod
    def _id_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _one_score_per_document(self) -> "TrainingExample":
        documents = 1 + len(self.negative_documents)
        if self.scores is not None and len(self.scores) != documents:
            raise ValueError(f"holds {len(self.scores)} scores for {documents} documents, the positive one included")
        return self

    @property
    def negatives(self) -> list[str]:
        """Texts of the negative documents."""
        return [n.document if isinstance(n, Negative) else n for n in self.negative_documents]

    @property
    def origin(self) -> set[str]:
        """Ids of the passage and the document that it was made from, where they are known."""
        return {name for name in (self.positive_id, self.source) if name}


class Passage(Record):
    """A text that the queries of a file of examples search, and the `positive_id` of examples that it answers."""

    passage_id: str | None
    passage: str


class SeedQuery(Record):
    """A query that more training queries are to be made around. `judged` are the ids of the documents that are judged
    for it in test data, of which none is made for its sake."""

    query: str
    judged: list[str] = Field(default_factory=list)


def corpus_file(examples: str | Path) -> Path:
    """Return where the passages are that the queries of a file of examples search, if it has some:
    `test_data_corpus.jsonl` beside `test_data.json`."""
    return Path(examples).with_name(f"{Path(examples).stem}_corpus.jsonl")


def replace_surrogates(value: Any) -> Any:
    """Return a text, or a JSON value with all its texts, with U+FFFD for each half of a surrogate pair: escapes in JSON
    and names of files that are not UTF-8 bring them in, and UTF-8 and tokenizers cannot hold them."""
    if isinstance(value, str):
        return value if value.isascii() else SURROGATES.sub("\ufffd", value)
    if isinstance(value, dict):
        return {replace_surrogates(name): replace_surrogates(item) for name, item in value.items()}
    return [replace_surrogates(item) for item in value] if isinstance(value, list) else value


def read_json_records(path: Path, strict: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of each record of a JSON list or a JSON Lines file; `place` is its file and line or number,
    for messages. Unless `strict`, the value of a broken line is the ValueError.

    Raises:
        ValueError: broken JSON, bytes that are not UTF-8, or a .json file that holds no list.
        OSError: the file cannot be read.
    """
    if path.suffix.lower() == ".jsonl":
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        value = parse_json(line, path, number)
                    except ValueError as error:
                        if strict:
                            raise
                        value = error
                    yield f"{path}: line {number}", value
        return
    try:
        values = parse_json(path.read_bytes().decode("utf-8-sig"), path)  # bytes would be kept until all is parsed
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    if not isinstance(values, list):
        raise ValueError(f"{path}: holds a JSON {type(values).__name__}, not a list of records")
    for number, value in enumerate(values, 1):
        yield f"{path}: record {number}", value


def parse_json(data: bytes | str, path: Path, line: int | None = None) -> Any:
    """Parse the JSON value in `data`, the whole file or its line number `line`, without lone surrogates.

    Raises:
        ValueError: broken JSON, or bytes that are not UTF-8.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(text)
        return replace_surrogates(value) if SURROGATE_ESCAPE.search(text) else value
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {line or error.lineno}: broken JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        reasons = {UnicodeDecodeError: "not UTF-8 text", RecursionError: "nested too deep"}
        reason = reasons.get(type(error), f"broken JSON: {error}")  # such as a number of too many digits
        raise ValueError(f"{path}: {f'line {line}: ' if line else ''}{reason}") from None


def read_examples(path: str | Path) -> list[TrainingExample]:
    """Read training, validation or test examples of a JSON list or, by `.jsonl`, JSON Lines. A document that several
    have is in memory once.

    Raises:
        ValueError: broken JSON, a missing or ill-typed field, a positive among its own negatives, or no record.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: No such file; generate_training_data.py writes such examples")
    examples = []
    documents: dict[str, str] = {}
    for place, value in read_json_records(path):
        try:
            example = TrainingExample.model_validate(value)
        except ValidationError as error:
            raise ValueError(f"{place}: {describe_error(error)}") from None
        positive = example.positive_document.strip()
        if positive and any(positive == negative.strip() for negative in example.negatives):
            raise ValueError(f"{place}: the positive document is among its own negative_documents; take it out there")
        _share_documents(example, documents)
        examples.append(example)
    if not examples:
        raise ValueError(f"{path}: holds no examples")
    return examples


def _share_documents(example: TrainingExample, known: dict[str, str]) -> None:
    """Let an example have the documents that are in `known`, each as its own key; others are added."""
    example.positive_document = known.setdefault(example.positive_document, example.positive_document)
    for number, negative in enumerate(example.negative_documents):
        if isinstance(negative, Negative):
            negative.document = known.setdefault(negative.document, negative.document)
        else:
            example.negative_documents[number] = known.setdefault(negative, negative)


def read_passages(examples_file: str | Path, examples: Sequence[TrainingExample]) -> list[Passage]:
    """Read the passages that were written beside a file of examples, see `corpus_file`; none where there are none.

    Raises:
        ValueError: broken JSON or a missing field; or the passages are others than those that the examples are of.
        OSError: the file cannot be read.
    """
    path = corpus_file(examples_file)
    if not path.exists():
        return []
    passages = []
    for place, value in read_json_records(path):
        try:
            passages.append(Passage.model_validate(value))
        except ValidationError as error:
            raise ValueError(
                f"{place}: {describe_error(error)}; by its name beside {examples_file} it holds the passages that "
                "those queries search: rename it if it does not"
            ) from None
    known = {(passage.passage_id, passage.passage) for passage in passages}
    for example in examples:
        if (example.positive_id, example.positive_document) not in known:
            raise ValueError(
                f"{path}: is not of the same run as {examples_file}: it lacks the positive document of "
                f"'{example.query[:60]}'; add it here as a line of passage_id and passage if that query is your own, "
                "or make both anew, or remove this file to search the documents of the examples"
            )
    return passages


def describe_error(error: ValidationError) -> str:
    """Return the first thing that is wrong, as `field 'query': Field required`."""
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["ctx"]["error"]) if first["type"] == "value_error" else "is not an object with fields"
    return f"field '{'.'.join(str(part) for part in first['loc'][:2])}': {first['msg']}"


def write_examples(path: str | Path, examples: Sequence[Record]) -> None:
    """Write examples, or passages, as a JSON list or, by `.jsonl`, as JSON Lines, one at a time. Fields that were never
    set are left out."""
    lines = Path(path).suffix == ".jsonl"
    with open_atomic(path) as file:
        for number, example in enumerate(examples):
            value = example.model_dump(exclude_unset=True)
            if lines:
                file.write(json.dumps(value, ensure_ascii=False) + "\n")
            else:
                file.write(",\n" if number else "[\n")
                file.write(textwrap.indent(json.dumps(value, ensure_ascii=False, indent=2), "  "))
        if not lines:
            file.write("\n]\n" if examples else "[]\n")
