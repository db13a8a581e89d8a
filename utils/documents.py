"""Read documents and judged collections from files and folders."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from markdownify import markdownify

from utils.records import Document, TrainingExample, read_json_records

TEXT_SUFFIXES = {".md", ".txt", ".rst", ".html", ".htm"}
SUFFIXES = TEXT_SUFFIXES | {".json", ".jsonl"}


class Documents(NamedTuple):
    """What was read, and a line for each file that could not be."""

    documents: list[Document]
    skipped: list[str]


class Collection(NamedTuple):
    """Documents, queries and judgments: qrels[query id][document id] is the grade."""

    documents: list[Document]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def pool_examples(examples: Iterable[TrainingExample]) -> Collection:
    """The collection that examples make: all their documents, each once, and as relevant each query's positives with
    what else was made from the same passage."""
    ids: dict[str, str] = {}  # text -> id
    queries: dict[str, str] = {}  # text -> id
    qrels: dict[str, dict[str, int]] = {}
    passages: dict[str, dict[str, int]] = {}  # positive_id -> the ids of its texts, judged
    answers: list[tuple[str, dict[str, int]]] = []
    for example in examples:
        pooled = [text.strip() for text in (example.positive_document, *example.negatives)]
        for text in filter(None, pooled):
            ids.setdefault(text, f"d{len(ids)}")
        if example.query.strip() and pooled[0]:
            query = queries.setdefault(example.query.strip(), f"q{len(queries)}")
            own = passages.setdefault(example.positive_id or pooled[0], {})
            own[ids[pooled[0]]] = 1
            answers.append((query, own))
    for query, own in answers:
        qrels.setdefault(query, {}).update(own)
    documents = [Document(id=name, text=text) for text, name in ids.items()]
    return Collection(documents, {name: text for text, name in queries.items()}, qrels)


def read_documents(path: str | Path) -> Documents:
    """Documents of a file, of all files below a folder, or of a folder in the BEIR layout (its corpus.jsonl alone).

    A document's id is its own `id` or `_id`, else its file's path within the folder, with `#N` for the Nth record of
    a file. A file in a folder that cannot be read is reported in `skipped`; a file given by name raises.

    Raises:
        ValueError: the file is broken, or there is no document at all.
        OSError: `path` does not exist or cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if (path / "corpus.jsonl").is_file():
        path = path / "corpus.jsonl"
    documents: list[Document] = []
    skipped: list[str] = []
    if path.is_dir():
        for file in _files(path):
            try:
                documents += _read_file(file, file.relative_to(path).as_posix())
            except (ValueError, OSError) as error:
                skipped.append(" ".join(str(error).split()))
        if not documents:
            reason = f"; {len(skipped)} could not be read, such as {skipped[0]}" if skipped else ""
            raise ValueError(f"{path}: no documents in this folder ({' '.join(sorted(SUFFIXES))}){reason}")
    else:
        documents = _read_file(path, path.name)
        if not documents:
            raise ValueError(f"{path}: holds no documents")
    _make_ids_unique(documents)
    return Documents(documents, skipped)


def read_collection(folder: str | Path, documents: str | Path | None = None) -> Collection:
    """A judged collection in the BEIR layout: corpus.jsonl (or `documents`, any path that `read_documents` takes),
    queries.jsonl and qrels/test.tsv. Only queries with a judgment above 0 are kept.

    Raises:
        ValueError: a file is broken, or nothing is judged.
        OSError: a file is missing.
    """
    folder = Path(folder)
    if documents is None and not (folder / "corpus.jsonl").is_file():
        raise FileNotFoundError(f"{folder}: has no corpus.jsonl; name the documents with --docs-file")
    queries: dict[str, str] = {}
    for place, value in read_json_records(folder / "queries.jsonl"):
        if not isinstance(value, dict) or "_id" not in value or not isinstance(value.get("text"), str):
            raise ValueError(f"{place}: a query needs the fields '_id' and 'text'")
        queries[str(value["_id"])] = value["text"]
    qrels = {query: grades for query, grades in _read_qrels(folder / "qrels" / "test.tsv").items() if query in queries}
    if not qrels:
        raise ValueError(f"{folder}: no query has a judgment above 0 in qrels/test.tsv")
    corpus = read_documents(folder if documents is None else documents).documents
    return Collection(corpus, {query: queries[query] for query in qrels}, qrels)


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if number == 1 and fields[-1].strip() == "score":
            continue
        try:
            query, document, grade = fields
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError:
            raise ValueError(f"{path}: line {number}: expected query-id, corpus-id and score with tabs") from None
    return {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}


def _files(folder: Path) -> list[Path]:
    """Readable kinds of files below `folder`, sorted; hidden ones, and what links lead to outside it, are left out."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, n) for n in names if Path(n).suffix.lower() in SUFFIXES and not n.startswith(".")]
    return sorted(found)


def _read_file(file: Path, name: str) -> list[Document]:
    suffix = file.suffix.lower()
    if suffix in (".json", ".jsonl"):
        return [
            _from_json(value, place, f"{name}#{number}")
            for number, (place, value) in enumerate(read_json_records(file), 1)
        ]
    try:
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: not UTF-8 text") from None
    if "\0" in text:
        raise ValueError(f"{file}: binary, not text")
    if suffix in (".html", ".htm"):
        page_title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        body = re.sub(r"<(head|script|style)\b.*?</\1\s*>", "", text, flags=re.IGNORECASE | re.DOTALL)
        text = markdownify(body, heading_style="ATX")
        if page_title and not text.lstrip().startswith("# "):
            text = f"# {' '.join(markdownify(page_title[1]).split())}\n\n{text}"
    elif suffix == ".rst":
        text = _rst_headings(text)
    title = ""
    if suffix != ".txt":
        first, _, rest = text.strip().partition("\n")
        if first.startswith("# "):
            title, text = first[2:].strip(), rest
    return [Document(id=name, title=title, text=text.strip())]


def _rst_headings(text: str) -> str:
    """reStructuredText's underlined headings as Markdown's; the first kind of underline is the title's."""
    levels: list[str] = []

    def heading(match: re.Match) -> str:
        mark = match[2][0]
        if mark not in levels:
            levels.append(mark)
        return f"{'#' * min(6, levels.index(mark) + 1)} {match[1].strip()}"

    underlined = r"^(?:[=\-~^\"'#*+`]{3,}\n)?(\S[^\n]*)\n(([=\-~^\"'#*+`])\3{2,})$"
    return re.sub(underlined, heading, text, flags=re.MULTILINE)


def _from_json(value: object, place: str, name: str) -> Document:
    if isinstance(value, str):
        return Document(id=name, text=value)
    if not isinstance(value, dict):
        raise ValueError(f"{place}: a document is a string or an object, not a JSON {type(value).__name__}")
    text = value.get("content", value.get("text"))
    if not isinstance(text, str):
        raise ValueError(f"{place}: a document needs a field 'content' or 'text' that holds a string")
    return Document(
        id=str(value.get("id", value.get("_id", name))), title=str(value.get("title") or "").strip(), text=text.strip()
    )


def _make_ids_unique(documents: list[Document]) -> None:
    seen: set[str] = set()
    for document in documents:
        base, copy = document.id, 1
        while document.id in seen:
            copy += 1
            document.id = f"{base}~{copy}"
        seen.add(document.id)
