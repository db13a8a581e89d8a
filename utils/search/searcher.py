"""Queries against an index of documents, with what shows why a passage matched."""

from collections.abc import Callable, Collection, Container, Sequence
from typing import Any, NamedTuple

import numpy as np

from utils.arguments import check_positive
from utils.documents.normalization import split_words
from utils.documents.segments import split_prose
from utils.search.base_index import BaseIndex
from utils.search.filters import Condition
from utils.search.legs import Hit, Key
from utils.search.store import StoredDocument, StoredPassage
from utils.search.synonyms import Synonyms
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import EMPTY_VECTOR, SparseVector

SEARCHES = ("hybrid", "splade", "bm25", "dense")
RERANKED = 50  # best hits that a reranker scores
SNIPPET_CHARACTERS = 200  # of a hit's text; about two lines of a terminal


class EncodedQuery(NamedTuple):
    """A query as it was asked, with its synonyms, and the vectors that it is searched by."""

    text: str
    expanded: str
    vector: SparseVector
    dense: np.ndarray | None = None


class DocumentSearch:
    """Search of an index.

    Args:
        kind: one of SEARCHES; hybrid is all that the index has.
        synonyms: expand queries before they are encoded.
        where: conditions on the documents, see utils.search.filters.parse_filters.
        rerank: scores texts for a query, see utils.search.scorers.open_reranker; None to leave the hits in their order.
        rerank_depth: how many of the best hits it scores, by their best passages; only these are found.
        fusion: one of utils.search.fusion.FUSIONS, for a hybrid search.
        weights: of a hybrid search, by the names of utils.search.legs.LEGS; it is of those alone. None for
            all, 1 each.
        query_terms: search by the so many heaviest terms of a query's vector alone; None for all.

    Raises:
        ValueError: `query_terms` is not at least 1.
        ValueError, OSError, ImportError: as `search_by`.
    """

    def __init__(
        self,
        index: BaseIndex,
        model: Encoder,
        kind: str = "hybrid",
        synonyms: Synonyms | None = None,
        where: Sequence[Sequence[Condition]] = (),
        rerank: Callable[[str, Sequence[str]], np.ndarray] | None = None,
        rerank_depth: int = RERANKED,
        fusion: str = "scores",
        weights: dict[str, float] | None = None,
        query_terms: int | None = None,
    ) -> None:
        check_positive(query_terms=query_terms)
        self.index, self.model, self.synonyms, self.where = index, model, synonyms, where
        self.rerank, self.rerank_depth = rerank, rerank_depth
        self.fusion, self.weights, self.query_terms = fusion, weights, query_terms
        self.search_by(kind)

    def search_by(self, kind: str) -> None:
        """Search by one of SEARCHES from now on.

        Raises:
            ValueError: there is no such kind, or the index has no vectors for it.
            ValueError, OSError, ImportError: the index's dense model cannot be opened.
        """
        if kind not in SEARCHES:
            raise ValueError(f"search by '{kind}': use {', '.join(SEARCHES)}")
        legs = list(self.weights or self.index.legs) if kind == "hybrid" else [kind]
        if missing := [leg for leg in legs if leg not in self.index.legs]:
            known = ", ".join(self.index.legs)
            hint = "; --dense-model makes an index with them" if missing[0] == "dense" else ""
            raise ValueError(f"search by {missing[0]}: the index has no such vectors; it has {known}{hint}")
        if "dense" in legs:
            self.index.open_dense(str(self.model.device))
        self.kind, self.legs = kind, legs

    def encode(self, query: str) -> EncodedQuery:
        """Return a query with its synonyms and the vectors that it is searched by."""
        return self.encode_together([query])[0]

    def encode_together(self, queries: Sequence[str]) -> list[EncodedQuery]:
        """Return several queries, each as `encode` does, in less time."""
        expanded = [self.synonyms.expand(query) if self.synonyms else query for query in queries]
        vectors, dense = [EMPTY_VECTOR] * len(queries), [None] * len(queries)
        if "splade" in self.legs:
            vectors = [vector.heaviest(self.query_terms) for vector in self.model.encode_queries(expanded)]
        if "dense" in self.legs:
            dense = self.index.dense.encode(expanded, queries=True)
        return list(map(EncodedQuery, queries, expanded, vectors, dense))

    def search(self, query: str, top_k: int) -> list[dict[str, Any]]:
        """Return the `top_k` best hits of a query, see `find`."""
        return self.find(self.encode(query), top_k)

    def rank(self, query: EncodedQuery, top_k: int) -> list[Hit]:
        """Return the `top_k` best hits, best first.

        Raises:
            ValueError: no document has a field that a condition is on.
        """
        hits = self.index.search(
            query.vector if "splade" in self.legs else None,
            query.expanded if "bm25" in self.legs else None,
            self.rerank_depth if self.rerank else top_k,
            self.where,
            query.dense,
            self.fusion,
            self.weights,
        )
        if self.rerank:
            passages = self.index.passages(hit.passage for hit in hits)
            hits = [hit for hit in hits if hit.passage in passages]  # another machine may have removed one
        if self.rerank and hits:
            scores = self.rerank(query.text, [passages[hit.passage].text for hit in hits]).tolist()
            hits = [hit._replace(score=score) for hit, score in zip(hits, scores)]
            hits = sorted(hits, key=lambda hit: -hit.score)[:top_k]
        return hits

    def look_up(self, hits: Sequence[Hit]) -> list[tuple[Hit, StoredDocument, StoredPassage]]:
        """Return hits with their documents and passages, without those that another machine has removed meanwhile."""
        passages = self.index.passages(hit.passage for hit in hits)
        documents = self.index.documents(hit.document for hit in hits)
        return [
            (hit, documents[hit.document], passages[hit.passage])
            for hit in hits
            if hit.passage in passages and hit.document in documents
        ]

    def find(self, query: EncodedQuery, top_k: int) -> list[dict[str, Any]]:
        """Return the `top_k` best hits, best first.

        Returns:
            [{"rank", "index", "id", "title", "heading", "score", "snippet", "terms", "words", "metadata", "passage"}]:
            `index` is the document's number, or its id in an index on a server, `score` what it is ranked by, the
            reranker's if there is one; `heading` stands above its best passage and `passage` is what the index knows
            that by; `terms` are those that query and passage share, with their part of the model's score,
            [(word, part), ...], heaviest first, parts summing to 1, and `words` those of the query that BM25 finds in
            it; each is empty where that was not searched by. `snippet` begins with the sentence or line of the passage,
            below title and heading, that holds the most of both.

        Raises:
            ValueError: no document has a field that a condition is on.
        """
        results = []
        for rank, (hit, document, passage) in enumerate(self.look_up(self.rank(query, top_k)), 1):
            shared, in_query, in_passage = shared_terms(query.vector, passage.terms)
            parts = in_query * in_passage
            order = np.argsort(-parts, kind="stable")
            shares = parts[order] / parts.sum() if len(parts) else parts
            terms = self.model.decode_terms(shared[order])
            words = self.matched_words(query, passage)
            body = _without_first_lines(passage.text, (document.title, passage.heading))
            results.append(
                {
                    "rank": rank,
                    "index": hit.document,
                    "id": document.id,
                    "title": document.title,
                    "heading": passage.heading,
                    "score": hit.score,
                    "snippet": snippet(body, [*words, *terms]),
                    "terms": list(zip(terms, shares.tolist())),
                    "words": words,
                    "metadata": document.metadata,
                    "passage": hit.passage,
                }
            )
        return results

    def matched_words(self, query: EncodedQuery, passage: StoredPassage) -> list[str]:
        """Return the words of a query that BM25 finds in a passage, none where that is not searched by."""
        return self.index.shared_words(query.expanded, passage) if "bm25" in self.legs else []

    def explain(self, query: EncodedQuery, passage: Key) -> tuple[list[dict[str, Any]], list[str]]:
        """Return why a passage matches.

        Returns:
            (a row for each term that query and passage share, heaviest first: `term`, its weight `in query` and `in
            passage`, its `share` of the model's score, and whose text does not have it itself, `expansion of`; the
            words that BM25 finds in both).

        Raises:
            ValueError: the passage was removed.
        """
        found = self.index.passage(passage)
        in_query = set(self.model.tokenize_queries([query.expanded])[0])
        in_passage = set(self.model.tokenize([found.text])[0])
        rows = explain_terms(self.model, query.vector, found.terms, in_query, in_passage)
        return rows, self.index.shared_words(query.expanded, found)


def explain_terms(
    model: Encoder,
    query: SparseVector,
    passage: SparseVector,
    query_tokens: Container[int],
    passage_tokens: Container[int],
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of `DocumentSearch.explain`, the `limit` heaviest of them, of two vectors and the tokens of their
    texts."""
    shared, in_query, in_passage = shared_terms(query, passage)
    parts = in_query * in_passage
    order = np.argsort(-parts, kind="stable")[:limit]
    texts = {"query": query_tokens, "passage": passage_tokens}
    return [
        {
            "term": word,
            "in query": float(in_query[place]),
            "in passage": float(in_passage[place]),
            "share": float(parts[place] / parts.sum()),
            "expansion of": " and ".join(name for name, tokens in texts.items() if int(shared[place]) not in tokens),
        }
        for place, word in zip(order.tolist(), model.decode_terms(shared[order]))
    ]


def shared_terms(query: SparseVector, passage: SparseVector) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the terms of both vectors and their weights in each."""
    shared, in_query, in_passage = np.intersect1d(
        query.indices, passage.indices, assume_unique=True, return_indices=True
    )
    return shared, query.values[in_query], passage.values[in_passage]


def snippet(text: str, words: Collection[str] = ()) -> str:
    """Return the beginning of a text, or what begins with the sentence or line that holds the most of the words, on one
    line."""
    wanted = set(words)
    spans = [
        (piece.start, wanted.intersection(split_words(text[piece.start : piece.end]))) for piece in split_prose(text)
    ]
    start, _ = max(spans, key=lambda span: len(span[1]), default=(0, wanted))
    line = " ".join(text[start:].split())
    return line if len(line) <= SNIPPET_CHARACTERS else line[: SNIPPET_CHARACTERS - 3].rsplit(" ", 1)[0] + "..."


def _without_first_lines(text: str, lines: Sequence[str]) -> str:
    """Return a text without those of the lines, as headings or not, that it begins with, unless nothing is left."""
    for _ in lines:
        first, _, rest = text.lstrip().partition("\n")
        if first.strip("# ") in lines and rest.strip():
            text = rest
    return text
