"""Read documents from files and folders."""

import functools
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utils.console import print_line, progress_bar
from utils.documents.duplicates import find_other_formats
from utils.documents.formats.registry import READERS, read_page
from utils.documents.normalization import normalize
from utils.documents.repetition import drop_repeated_text
from utils.documents.tables import read_table_records
from utils.journal import JOURNAL_SUFFIX
from utils.records import ENGINE_VECTOR, OUTPUT_FIELDS, REPORT_MARKS, Document, read_json_records, replace_surrogates

_read_each_json_record = functools.partial(read_json_records, strict=False)
RECORD_READERS = {
    ".json": _read_each_json_record,
    ".jsonl": _read_each_json_record,
    ".csv": read_table_records,
    ".tsv": read_table_records,
}
SUFFIXES = READERS.keys() | RECORD_READERS.keys()
INDEX_STORE = "store.sqlite"  # a file of a folder that is an index of utils.search
PACKAGE_FOLDERS = {"node_modules", "site-packages", "__pycache__"}  # of installed packages, not of these documents
REPORT_MARK_BYTES = 1000  # bytes at the start of a page in which the mark stands
MAX_OUTPUTS_NAMED = 5  # of the scripts' outputs in a folder; of more, the number is said
MAX_IDS_NAMED = 3  # of those that had to be changed
MAX_UNREAD_SUFFIXES = 20  # suffixes named of a folder's other files, the most frequent; the rest is added up


class Unread(str):
    """A line on documents that could not be read, and may be there another time."""


class OutputError(ValueError):
    """A file of the scripts' own output is no document."""


class Documents(NamedTuple):
    """Documents that were read, and a line for each file, or kind of file, that was not, or in part only; the first are
    for what the pages of a folder share, for the files of all kinds that nothing here reads, and for those that the
    scripts wrote."""

    documents: list[Document]
    skipped: list[str]


def read_documents(path: str | Path) -> Documents:
    """Read documents from a file, from all files below a folder, or from a folder in the BEIR layout (its corpus.jsonl
    alone).

    A document's id is its own `id` or `_id`, as `FILE#ID` where records of two files have the same, else its file's
    path within the folder, with `#N` for the Nth record of a file. What a record holds beside id, title and text is
    the document's metadata. What half of a folder's pages share (a banner, a menu, a license; see
    `drop_repeated_text`) is dropped and reported in `skipped`, and so is, as `Unread`, a file in a folder that
    cannot be read; a file given by name raises. Broken records among others of a file are reported in `skipped`,
    however the file was given.

    Of a folder, hidden files and folders and those of PACKAGE_FOLDERS are left out; model folders and what the scripts
    themselves wrote are reported in `skipped`. Names of files that are not UTF-8 have U+FFFD for what is not.

    Raises:
        ValueError: the file is broken or of no kind that is read, or there is no document at all.
        ImportError: the library that reads the file is not installed.
        OSError: `path` does not exist or cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if (path / "corpus.jsonl").is_file():
        path = path / "corpus.jsonl"
    read: list[tuple[str, list[Document]]] = []  # (name of a file, its documents)
    skipped: list[str] = []
    if path.is_dir():
        files, unread, links, outputs = _find_files(path)
        missing: Counter[tuple[str, str]] = Counter()  # (suffix, package that reads it) -> files
        for file in progress_bar(files, desc="reading", unit="files"):
            name = replace_surrogates(file.relative_to(path).as_posix())
            try:
                read.append((name, _read_file(file, name, skipped)))
            except OutputError:
                outputs.append(name)
            except ImportError as error:
                missing[file.suffix.lower(), str(error)] += 1
            except (ValueError, OSError) as error:
                is_empty = file.is_file() and file.stat().st_size == 0
                skipped.append(str(error) if is_empty else Unread(error))
        for (suffix, name), count in missing.items():
            skipped.append(Unread(f"{count} {suffix} files; to read them: pip install {name}"))
        if links:
            skipped.append(
                f"{path}: {links:,} symbolic links that lead outside of it; name their targets, or copy them"
            )
        if outputs:
            skipped.insert(0, _list_outputs(outputs))
        if unread:
            skipped.insert(0, f"{_tally_suffixes(unread)}: kinds of files that are not read")
        pages = [page for name, of_file in read for page in of_file if Path(name).suffix.lower() in READERS]
        skipped[:0] = drop_repeated_text(pages)
        _print_other_formats(pages, path)
        if not any(documents for _, documents in read):
            reason = "; ".join(skipped[:3]) or f"it holds no file of {' '.join(sorted(SUFFIXES))}"
            raise ValueError(f"{path}: no documents in this folder: {reason}")
    else:
        if path.suffix.lower() not in SUFFIXES:
            kind = f"a {path.suffix} file" if path.suffix else "a file without a suffix"
            raise ValueError(f"{path}: {kind}; what is read: {' '.join(sorted(SUFFIXES))} (plain text is .txt)")
        try:
            name = replace_surrogates(path.name)
            read.append((name, _read_file(path, name, skipped)))
        except ImportError as error:
            raise ImportError(f"{path}: to read it: pip install {error}") from None
        if not read[0][1]:
            raise ValueError(f"{path}: holds no documents")
    _make_ids_unique(read, path)
    documents = [document for _, of_file in read for document in of_file]
    return Documents(documents, [type(reason)(replace_surrogates(" ".join(reason.split()))) for reason in skipped])


def stream_documents(path: str | Path, skipped: list[str]) -> Iterable[Document]:
    """Return what `read_documents` returns, as a list, or the records of a file as they are read, so that memory does
    not grow with the file unless that is one JSON list; what was not read is added to `skipped` in the end.

    Raises:
        ValueError, ImportError, OSError: see `read_documents`; of records, when they are read.
    """
    file = Path(path, "corpus.jsonl") if Path(path, "corpus.jsonl").is_file() else Path(path)
    if file.suffix.lower() in RECORD_READERS and file.is_file():
        return _stream_records(file, skipped)
    documents, reasons = read_documents(path)
    skipped += reasons
    return documents


def _stream_records(file: Path, skipped: list[str]) -> Iterator[Document]:
    """Yield the documents of a JSON file or a table, see `stream_documents`."""
    unique, found = _UniqueIds(), False
    for document in _read_records(file, replace_surrogates(file.name), skipped):
        unique.apply(document)
        found = True
        yield document
    unique.print_changed(file)
    if not found:
        raise ValueError(f"{file}: holds no documents")


def _find_files(folder: Path) -> tuple[list[Path], Counter[str], int, list[str]]:
    """Return the files below `folder` with one of SUFFIXES, sorted, how many there are of each other suffix, the number
    of symbolic links, to such files or to folders, that lead outside of it, and the names of model folders below it, of
    which no file is among the others.

    Hidden files and folders and PACKAGE_FOLDERS are left out. A folder from others must not be able to name files of
    its reader's, since passages may be sent to a language model. A link to a file that is read anyway, or to a folder
    within, is left out.
    """
    root = Path(os.path.realpath(folder))
    files: list[Path] = []
    links: list[Path] = []
    unread: Counter[str] = Counter()
    outside = 0
    models: list[str] = []
    for parent, folders, names in os.walk(folder):
        if Path(parent) != folder and (_is_model_folder(names) or INDEX_STORE in names):
            models.append(f"{Path(parent).relative_to(folder).as_posix()}/")
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".") and name not in PACKAGE_FOLDERS]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            suffix = path.suffix.lower()
            if suffix in SUFFIXES:
                (links if path.is_symlink() else files).append(path)
            elif suffix != JOURNAL_SUFFIX:  # of an output of the scripts, maybe that of this run
                unread[suffix] += 1
        targets = (os.path.realpath(Path(parent, name)) for name in folders if Path(parent, name).is_symlink())
        outside += sum(not Path(target).is_relative_to(root) for target in targets)
    targets = {os.path.realpath(file) for file in files}
    for link in sorted(links):
        target = os.path.realpath(link)
        if not Path(target).is_relative_to(root):
            outside += 1
        elif target not in targets:
            targets.add(target)
            files.append(link)
    return sorted(files), unread, outside, models


def _is_model_folder(names: Collection[str]) -> bool:
    """Return whether a folder with files of these names holds a model, or a checkpoint of one."""
    weights = any(name.endswith(".safetensors") for name in names)
    return "splade_config.json" in names or (weights and not {"config.json", "adapter_config.json"}.isdisjoint(names))


def _list_outputs(names: Sequence[str]) -> str:
    """Return a line on files and folders that the scripts wrote."""
    named = sorted(names)[:MAX_OUTPUTS_NAMED]
    more = f" and {len(names) - len(named):,} more" if len(names) > len(named) else ""
    return f"{', '.join(named)}{more}: written by these scripts, or a model; no documents"


def _tally_suffixes(counts: Counter[str]) -> str:
    """Return counts as `12 .tex, 3 .png, 1 without a suffix`, the most frequent suffixes first."""
    named = counts.most_common(MAX_UNREAD_SUFFIXES)
    parts = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in named]
    others = counts.total() - sum(count for _, count in named)
    return ", ".join([*parts, f"{others:,} more"] if others else parts)


def _print_other_formats(pages: Sequence[Document], path: Path) -> None:
    """Print how many pages, whose ids are the names of their files, a folder holds in two formats."""
    found: dict[tuple[str, ...], list[str]] = {}  # (suffix, other suffix) -> files
    for pair in find_other_formats({page.id: page.text for page in pages}):
        found.setdefault(tuple(Path(name).suffix for name in pair), []).append(pair[0])
    for (suffix, other), names in found.items():
        print_line(
            f"{path}: {len(names):,} pages are there as {suffix} and as {other}, such as {names[0]}; both are read, "
            "keep one kind to find each page once"
        )


def _read_file(file: Path, name: str, skipped: list[str]) -> list[Document]:
    """Read the records of a JSON file or a table, or the one document of any other file; `name` stands in for a missing
    id. A line on broken records is added to `skipped`.

    Raises:
        ValueError: it is no regular file, or broken, or a page without text.
        OutputError: one of the scripts wrote the file.
    """
    if not file.is_file():
        raise ValueError(f"{file}: is not a regular file")
    if file.suffix.lower() in RECORD_READERS:
        return list(_read_records(file, name, skipped))
    if file.suffix == ".html" and _is_report(file):
        raise OutputError(f"{file}: is a report of generate_training_data.py, no document")
    title, text = read_page(file)
    if not title and not text:
        raise ValueError(f"{file}: holds no text")
    return [Document(id=name, title=title, text=text)]


def _read_records(file: Path, name: str, skipped: list[str]) -> Iterator[Document]:
    """Yield the documents of a JSON file or a table, see `_read_file`."""
    found, broken, errors = 0, 0, []
    for number, (place, value) in enumerate(RECORD_READERS[file.suffix.lower()](file), 1):
        try:
            if isinstance(value, ValueError):
                raise value
            document = _parse_json_document(value, place, f"{name}#{number}")
        except ValueError as error:
            broken += 1
            errors = [*errors[:1], error]
            continue
        found += 1
        yield document
    if broken and not found:
        raise errors[0]
    if broken:
        # A quote that is never closed costs the rest of the file, and is always the last error.
        reasons = dict.fromkeys(str(error).removeprefix(f"{file}: ") for error in errors)
        skipped.append(Unread(f"{file}: {broken:,} of {number:,} records, such as {', and '.join(reasons)}"))


def _is_report(file: Path) -> bool:
    with file.open("rb") as page:
        start = page.read(REPORT_MARK_BYTES)
    return any(mark in start for mark in REPORT_MARKS)


def _parse_json_document(value: object, place: str, name: str) -> Document:
    """Return the document in a JSON string or object; `place` is named in errors. Its metadata are the fields of the
    object's `metadata`, and all fields of the object that are no part of a document themselves.

    Raises:
        ValueError: the value is neither, or has no text.
        OutputError: one of the scripts wrote it.
    """
    if isinstance(value, str):
        return Document(id=name, text=normalize(value).strip())
    if not isinstance(value, dict):
        raise ValueError(f"{place}: a document is a string or an object, not a JSON {type(value).__name__}")
    fields = dict(value)
    text = _pop_given(fields, "content", "text")
    own = any(fields.keys() >= names for names in OUTPUT_FIELDS)
    if ENGINE_VECTOR in fields or (own and not isinstance(text, str)):  # an engine's file has the document's text, too
        raise OutputError(f"{place}: output of one of these scripts, such as a training example, is no document")
    if not isinstance(text, str):
        raise ValueError(f"{place}: a document needs a field 'content' or 'text' that holds a string")
    title = " ".join(normalize(str(fields.pop("title", None) or "")).split())
    own_id = _pop_given(fields, "id", "_id")
    metadata = fields.pop("metadata", None) or {}
    metadata = {**fields, **(metadata if isinstance(metadata, dict) else {"metadata": metadata})}
    own_id = name if own_id is None else str(own_id)
    return Document(id=own_id if own_id.strip() else name, title=title, text=normalize(text).strip(), metadata=metadata)


def _pop_given(fields: dict[str, Any], *names: str) -> Any:
    """Remove and return the first of the named fields that holds something, else the first that is there, else
    None."""
    present = [name for name in names if name in fields]
    if not present:
        return None
    return fields.pop(max(present, key=lambda name: (fields[name] is not None, str(fields[name]).strip() != "")))


def _make_ids_unique(read: Sequence[tuple[str, Sequence[Document]]], path: Path) -> None:
    """Put the file's name before ids that two files have, and append `~2`, `~3` and so on to those that still occur
    again, in place.

    Args:
        read: (name of a file, its documents).
        path: where they are, for a line of output.
    """
    files = Counter(name for _, documents in read for name in {document.id for document in documents})
    for name, documents in read:
        for document in documents:
            if files[document.id] > 1 and document.id != name and not document.id.startswith(f"{name}#"):
                document.id = f"{name}#{document.id}"
    unique = _UniqueIds()
    for document in (document for _, documents in read for document in documents):
        unique.apply(document)
    unique.print_changed(path)


class _UniqueIds:
    """Appends `~2`, `~3` and so on to ids that occur again."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._occurrences: Counter[str] = Counter()
        self._changed: list[str] = []

    def apply(self, document: Document) -> None:
        base = document.id
        while document.id in self._seen:
            self._occurrences[base] += 1
            document.id = f"{base}~{self._occurrences[base] + 1}"
        self._seen.add(document.id)
        if document.id != base:
            self._changed.append(f"'{document.id}'")

    def print_changed(self, path: Path) -> None:
        """Print how many ids were not as they are in the input, if there are any."""
        if self._changed:
            more = ", ..." if len(self._changed) > MAX_IDS_NAMED else ""
            names = " ".join(", ".join(self._changed[:MAX_IDS_NAMED]).split())
            print_line(
                f"{path}: {len(self._changed):,} documents have the id of an earlier one; they are called {names}{more}"
            )
