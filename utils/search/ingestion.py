"""Documents -> passages with their vectors, as a stream: what is done before an index takes them in."""

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from tqdm import tqdm

from utils.records import Document, replace_surrogates
from utils.search.dense import DenseEncoder
from utils.search.passages import Passage, split_document
from utils.search.store import StoredPassage
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import SparseVector

READ_AHEAD = 256  # documents read together; the first of them are what the language is taken from
COMMIT_PASSAGES = 512  # passages that are encoded and kept together; a crash costs few more
DENSE_PASSAGES = 64  # passages that the dense model encodes together


class EncodedDocument(NamedTuple):
    """A document with its passages, and whether it is longer than the model's limit in tokens."""

    document: Document
    passages: list[StoredPassage]
    long: bool


class _Waiting(NamedTuple):
    document: Document
    passages: list[Passage]
    vectors: list[SparseVector]
    long: bool


def read_windows(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield the documents of a stream as they are stored and read again, READ_AHEAD at a time.

    Raises:
        ValueError: metadata of one are nothing that JSON can hold.
    """
    stream = iter(documents)
    while window := [_storable(document) for document in itertools.islice(stream, READ_AHEAD)]:
        yield window


def encode_documents(
    windows: Iterable[Sequence[Document]],
    model: Encoder,
    dense: DenseEncoder | None,
    count_words: Callable[[str], SparseVector],
    batch_size: int | None,
    bar: tqdm,
) -> Iterator[EncodedDocument]:
    """Yield documents with their passages, in order and in constant memory.

    Args:
        windows: documents whose tokens are counted together.
        count_words: of a passage, for BM25; it is first called after some documents have been read.
        batch_size: see `Encoder.encode_stream`.
        bar: is advanced for each passage, and learns how many there are if it has a total.
    """
    waiting: deque[_Waiting] = deque()  # documents whose vectors are still to come
    ready: list[_Waiting] = []

    def texts() -> Iterator[str]:
        for window in windows:
            full_texts = [document.full_text for document in window]
            for document, text, tokens in zip(window, full_texts, model.count_tokens(full_texts)):
                passages = split_document(model, text, tokens, document.title)
                waiting.append(_Waiting(document, passages, [], tokens > model.max_length))
                if bar.total is not None:
                    bar.total += len(passages) - 1
                yield from (passage.text for passage in passages)

    def finish() -> Iterator[EncodedDocument]:
        texts = [passage.text for document in ready for passage in document.passages]
        dense_vectors = iter(dense.encode(texts) if dense else [None] * len(texts))
        for document, passages, vectors, long in ready:
            stored = [
                StoredPassage(text, heading, vector, count_words(text), next(dense_vectors))
                for (text, heading), vector in zip(passages, vectors)
            ]
            yield EncodedDocument(document, stored, long)
        ready.clear()

    for vector in model.encode_stream(texts(), batch_size=batch_size, window=COMMIT_PASSAGES, progress=bar):
        waiting[0].vectors.append(vector)
        if len(waiting[0].vectors) == len(waiting[0].passages):
            ready.append(waiting.popleft())
        if not dense or sum(len(document.passages) for document in ready) >= DENSE_PASSAGES:
            yield from finish()
    yield from finish()


def _storable(document: Document) -> Document:
    """Return the document as it is stored and read again: its texts without lone surrogates, which UTF-8 cannot hold,
    and its metadata as JSON has them, other objects as texts."""
    texts = {name: replace_surrogates(getattr(document, name)) for name in ("id", "title", "text")}
    try:
        metadata = replace_surrogates(json.loads(json.dumps(document.metadata, default=str)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"document '{texts['id']}': its metadata cannot be kept: {error}") from None
    return document.model_copy(update={**texts, "metadata": metadata})


def content_fingerprint(document: Document) -> bytes:
    """Return what changes when the document's title or text does."""
    return hashlib.blake2b(f"{document.title}\0{document.text}".encode(), digest_size=16).digest()


def same_metadata(one: dict, other: dict) -> bool:
    """Return whether metadata are the same, the order of fields included."""
    return json.dumps(one) == json.dumps(other)
