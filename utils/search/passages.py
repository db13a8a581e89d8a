"""Search of documents of any length: one that is longer than the model's limit is found by its passages."""

from collections.abc import Sequence
from typing import NamedTuple

from utils.console import progress_bar
from utils.documents.chunking import split_text
from utils.search.index import SearchIndex
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import SparseVector

FILLED = 0.85  # share of the limit that parts are cut to have on average; most of them then fit at once


class Hit(NamedTuple):
    """A document that was found: its position in the list, its score, and the position of its best passage."""

    document: int
    score: float
    passage: int


class DocumentIndex:
    """Documents, encoded and indexed. One that is longer than the model's limit in tokens is encoded as its passages
    (see `split_document`), and scores as the best of them; the others are encoded whole.

    Args:
        model: its `max_length` is the limit.
        texts: the documents, each identified by its position.
        titles: of the documents, with which their texts begin; each passage of a document begins with it, too.
        batch_size: see `SpladeEncoder.encode_stream`.

    Attributes:
        passages: texts of all passages; a document that fits the limit is one.
        owners: position of the document that each passage is of.
        vectors: of the passages.
        long_documents: how many documents are longer than the limit.
    """

    def __init__(
        self,
        model: SpladeEncoder,
        texts: Sequence[str],
        titles: Sequence[str] | None = None,
        batch_size: int | None = None,
        show_progress: bool = False,
    ) -> None:
        self.passages: list[str] = []
        self.owners: list[int] = []
        self.long_documents = 0
        documents = zip(texts, titles or [""] * len(texts), model.count_tokens(texts))
        bar = {"total": len(texts), "desc": "passages", "unit": "documents", "leave": False, "show": show_progress}
        for position, (text, title, tokens) in enumerate(progress_bar(documents, **bar)):
            long = tokens > model.max_length
            passages = split_document(model, text, tokens, title) if long else [text]
            self.passages += passages
            self.long_documents += long
            self.owners += [position] * len(passages)
        self.vectors = model.encode(self.passages, batch_size=batch_size, show_progress=show_progress)
        self._index = SearchIndex(self.vectors)

    def search(self, vector: SparseVector, top_k: int) -> list[Hit]:
        """Return the `top_k` documents with the highest dot product with the query's vector, best first, ties by
        position; only documents that share a term with the query."""
        depth = top_k
        while True:
            passages = self._index.search(vector, depth)
            best: dict[int, Hit] = {}
            for passage, score in passages:
                document = self.owners[passage]
                best.setdefault(document, Hit(document, score, passage))
            if len(best) >= top_k or len(passages) < depth:
                return list(best.values())[:top_k]
            depth *= 2


def split_document(model: SpladeEncoder, text: str, tokens: int, title: str = "") -> list[str]:
    """Split a text of so many tokens into passages that fit the model's limit, at the largest boundaries (paragraph,
    sentence, word); white space is one empty passage. Each begins with the title, as the text does, unless that takes
    more than half of the limit."""
    limit, special = model.max_length, model.tokenizer.num_special_tokens_to_add()
    title = title.strip()
    title_tokens = next(model.count_tokens([title])) - special
    if not 0 < title_tokens <= (limit - special) // 2:
        return _split(model, text, tokens, limit) or [""]
    parts = _split(model, text.removeprefix(title), tokens - title_tokens, limit - title_tokens) or [""]
    return [f"{title}\n{part}" for part in parts]


def _split(model: SpladeEncoder, text: str, tokens: int, limit: int) -> list[str]:
    """Split a text by characters, and again what is still longer than the limit."""
    if tokens <= limit or len(text) == 1:
        return [text]
    size = max(1, int(FILLED * limit / tokens * len(text)))
    parts = [text[start:end].strip() for start, end in split_text(text, size)]
    counts = model.count_tokens(parts)
    return [piece for part, count in zip(parts, counts) for piece in _split(model, part, count, limit)]
