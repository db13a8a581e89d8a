"""What a model was trained on and what came since, in units: documents, or the queries of a session."""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from utils.console import print_skipped, progress_bar
from utils.documents.normalization import text_key
from utils.documents.reading import stream_documents
from utils.records import Document, read_json_records

MAX_UNITS = 2000  # of either side; more are sampled, and a difference that these do not show is small

Unit = TypeVar("Unit")


@dataclass(frozen=True)
class Units:
    """Documents, or the queries of each session.

    Attributes:
        documents: empty for queries.
        sessions: the queries of each session; empty for documents.
        total: how many there were before they were sampled.
        known: those not among them since the other side has the same text.
        short: those not among them since no query can be made from them, where the other side is training examples.
        from_examples: whether they are the documents that training examples were made from.
    """

    documents: Sequence[Document] = ()
    sessions: Sequence[Sequence[str]] = ()
    total: int = 0
    known: int = 0
    short: int = 0
    from_examples: bool = False

    def __len__(self) -> int:
        return len(self.documents or self.sessions)

    @property
    def kind(self) -> str:
        return "queries" if self.sessions else "documents"

    @property
    def texts(self) -> list[str]:
        """Each unit as one text."""
        return [document.full_text for document in self.documents] or ["\n".join(queries) for queries in self.sessions]

    def describe(self) -> str:
        """Return how many there are, for a line of output."""
        unit = self.kind if self.documents or all(len(queries) == 1 for queries in self.sessions) else "sessions"
        parts = [f"{self.total:,} {unit}"]
        if self.total > len(self) + self.short:
            parts.append(f"{len(self) + self.short:,} of them sampled")
        if self.known:
            parts.append(f"without {self.known:,} that the reference has")
        if self.short:
            parts.append(f"{self.short:,} too short for a query left out")
        return ", ".join(parts)


def read_units(new: str | Path, reference: str | Path, seed: int = 0) -> tuple[Units, Units]:
    """Read the reference and what is new: queries, if that is a text file, with one a line, or JSON with a field
    `query`; else documents. Documents with a text that the reference has are left out; queries recur as people ask
    them. Examples of training are documents by their positives, and queries.

    Returns:
        The reference, and what is new, up to MAX_UNITS of each, drawn at random.

    Raises:
        ValueError: a file is broken or holds nothing of the kind, or fewer than two units are left.
        ImportError, OSError: see `stream_documents`.
    """
    new, reference = Path(new), Path(reference)
    seen: set[int] = set()  # 64-bit hashes, because the texts would take as much memory as the collection
    kind = "queries" if _holds_queries(new) else "documents"
    if kind == "queries":
        found = [_sample(_read_sessions(path), seed) for path in (reference, new)]
        before, after = (Units(sessions=drawn, total=total) for drawn, total in found)
    else:
        from_examples = _holds_queries(reference)
        earlier = _join_positives(reference) if from_examples else _stream(reference)
        drawn, total = _sample(_note_texts(earlier, seen), seed)
        before, others, known = Units(drawn, total=total, from_examples=from_examples), set(), 0

        def is_new(document: Document) -> bool:
            nonlocal known
            key = hash(text_key(document.full_text))
            known += key in seen
            repeated = key in seen or key in others
            others.add(key)
            return not repeated

        drawn, total = _sample(filter(is_new, _stream(new)), seed)
        after = Units(drawn, total=total, known=known)
    for path, units in ((reference, before), (new, after)):
        if len(units) < 2:
            reason = f", and {units.known:,} that the reference has" if units.known else ""
            raise ValueError(f"{path}: {len(units)} {kind}{reason}; a comparison takes two at least, better 50")
    return before, after


def _holds_queries(path: Path) -> bool:
    """Return whether a file is one of queries: plain text, or JSON whose first record has a query."""
    if not path.is_file():
        return False
    if path.suffix.lower() not in (".json", ".jsonl"):
        return path.suffix.lower() == ".txt"
    _, first = next(read_json_records(path, strict=False), ("", None))
    return isinstance(first, dict) and "query" in first


def _read_sessions(path: Path) -> Iterator[list[str]]:
    """Yield the queries of each session, those of a text file or without a session one by one. Queries that were made
    from one document are a session; one that stands in several lines in a row was asked once."""
    if not _holds_queries(path):
        raise ValueError(f"{path}: holds no queries; name a .txt file with one a line, or .jsonl with a field 'query'")
    if path.suffix.lower() == ".txt":
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            rows: Iterable[tuple[Any, str]] = ((None, " ".join(line.split())) for line in lines)
            yield from ([query] for _, query in _without_repeats(rows))
        return
    sessions: dict[str, list[str]] = {}
    for session, query in _without_repeats(_read_query_records(path)):
        if session is None:
            yield [query]
        else:
            sessions.setdefault(session, []).append(query)
    yield from sessions.values()


def _read_query_records(path: Path) -> Iterator[tuple[str | None, str]]:
    for place, value in read_json_records(path):
        query = value.get("query") if isinstance(value, dict) else None
        if not isinstance(query, str):
            raise ValueError(f"{place}: has no field 'query' that holds a string")
        session = value.get("session") or value.get("source")
        yield session if session is None else str(session), " ".join(query.split())


def _without_repeats(rows: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, str]]:
    return (row for row, _ in itertools.groupby(row for row in rows if row[1]))


def _stream(path: Path) -> Iterator[Document]:
    skipped: list[str] = []
    for document in progress_bar(stream_documents(path, skipped), desc=path.name, unit="documents", leave=False):
        if document.full_text:
            yield document
    print_skipped(skipped)


def _join_positives(path: Path) -> Iterator[Document]:
    """Yield the documents that training examples were made from, by the longest positive document of each passage.

    Raises:
        ValueError: a record is no training example.
    """
    passages: dict[str, dict[str, str]] = {}
    for place, value in read_json_records(path):
        text = value.get("positive_document") if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise ValueError(f"{place}: no training example, and no document: it has no field 'positive_document'")
        passage = str(value.get("positive_id") or text)
        own = passages.setdefault(str(value.get("source") or passage), {})
        own[passage] = max(own.get(passage, ""), text, key=len)
    for name, texts in passages.items():
        if any(text.strip() for text in texts.values()):
            yield Document(id=name, text="\n\n".join(texts.values()))


def _note_texts(documents: Iterable[Document], seen: set[int]) -> Iterator[Document]:
    """Yield the documents that repeat none before, and add their texts' hashes to `seen`."""
    for document in documents:
        key = hash(text_key(document.full_text))
        if key not in seen:
            seen.add(key)
            yield document


def _sample(units: Iterable[Unit], seed: int) -> tuple[list[Unit], int]:
    """Return up to MAX_UNITS units, drawn at random as they come (Vitter 1985, algorithm R), and how many there
    were."""
    rng, drawn, total = random.Random(seed), [], 0
    for total, unit in enumerate(units, 1):
        if total <= MAX_UNITS:
            drawn.append(unit)
        elif (place := rng.randrange(total)) < MAX_UNITS:
            drawn[place] = unit
    return drawn, total
