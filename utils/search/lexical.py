"""BM25 search, by bm25s: the lexical baseline of evaluation, a teacher, a filter, and a source of hard negatives."""

import threading
from collections import Counter
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import scipy.sparse

from utils.languages import base_language, detect_language, parse_language
from utils.search.analyzer import describe_analyzer, open_tokenizer
from utils.splade.vectors import SparseVector

# bm25s' defaults. On five English collections, Lucene's k1 of 1.2 is as good on average, and Anserini's 0.9 and 0.4 are
# worse.
K1, B = 1.5, 0.75


class BM25Index:
    """BM25 index over a list of texts (Robertson and Zaragoza 2009, in Lucene's variant), which several threads may
    search at once.

    Args:
        texts: the documents; each is identified by its position in the list.
        language: of the texts and the queries, see utils.languages.parse_language; None for that of most texts.

    Attributes:
        description: its parameters and its analyzer, for a line of output.

    Raises:
        ValueError: there is no such language.
    """

    def __init__(self, texts: Sequence[str], language: str | None = None) -> None:
        from bm25s import BM25  # not above: utils.search.analyzer has to be the first to import it

        self.size = len(texts)
        self.language = base_language(parse_language(language)) if language else detect_language(texts)
        self.description = f"BM25: k1 {K1}, b {B}; {describe_analyzer(self.language)}"
        self._vocabulary = open_tokenizer(self.language)
        self._lock = threading.Lock()  # a stemmer is for one thread at a time
        tokens = self._vocabulary.tokenize(list(texts), return_as="ids", show_progress=False)
        # bm25s gives a text without known words this one token.
        self._blank = {self._vocabulary.get_vocab_dict().get("", -1)}
        self._bm25 = BM25(k1=K1, b=B)
        self._bm25.index((tokens, self._vocabulary.get_vocab_dict()), show_progress=False)

    def mean_terms(self, texts: Sequence[str]) -> float:
        """Return the mean number of distinct terms of the index's vocabulary per text, 0 of no text."""
        return sum(len(set(row) - self._blank) for row in self._tokenize(texts)) / max(1, len(texts))

    def document_matrix(self) -> scipy.sparse.csr_array:
        """Return [texts, terms] BM25 weights: what each occurrence of a term in a query adds to a text's score."""
        scores = self._bm25.scores
        terms = len(scores["indptr"]) - 1
        parts = (scores["data"], scores["indices"], scores["indptr"])
        return scipy.sparse.csc_array(parts, shape=(self.size, terms)).tocsr()

    def query_matrix(self, queries: Sequence[str]) -> scipy.sparse.csr_array:
        """Return [queries, terms] term counts; the product with the transposed `document_matrix` is the BM25 scores."""
        rows = [[term for term in row if term not in self._blank] for row in self._tokenize(queries)]
        starts = np.cumsum([0, *map(len, rows)])
        terms = np.array([term for row in rows for term in row], np.int32)
        shape = (len(rows), len(self._bm25.scores["indptr"]) - 1)
        return scipy.sparse.csr_array((np.ones(len(terms), np.float32), terms, starts), shape=shape)

    def search(self, queries: Sequence[str], top_k: int) -> list[list[tuple[int, float]]]:
        """Return the `top_k` (position, score) of each query, best first, without texts that share no term with it."""
        if not queries:  # bm25s fails on none
            return []
        tokens = self._tokenize(queries)
        options = {"show_progress": False, "n_threads": 0, "backend_selection": "numpy"}
        hits = self._bm25.retrieve(tokens, k=min(top_k, self.size), **options)
        return [
            [(int(i), float(s)) for i, s in zip(positions, scores) if s > 0 and set(row) != self._blank]
            for row, positions, scores in zip(tokens, hits.documents, hits.scores)
        ]

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the terms of each text that the index has, by number."""
        with self._lock:
            return self._vocabulary.tokenize(list(texts), update_vocab=False, return_as="ids", show_progress=False)


class TermCounter:
    """Counts of the terms of single texts, for an index that grows: a term's number is the CRC-32 of its stem without
    the highest bit, so that there is no vocabulary to keep. Among 100,000 stems about two pairs share a number.

    Args:
        language: ISO 639 code of the texts, None for neither a stemmer nor stop words.
    """

    def __init__(self, language: str | None) -> None:
        self._analyzer = open_tokenizer(language)
        self._stop_words = frozenset(self._analyzer.stopwords or ())
        self._numbers: dict[str, int] = {}  # of words that were met
        self._lock = threading.Lock()  # a stemmer is for one thread at a time

    def count(self, text: str) -> SparseVector:
        """Return how often each term stands in a text."""
        with self._lock:
            counts = Counter(
                self._number(word) for word in self._analyzer.splitter(text) if word not in self._stop_words
            )
        numbers = np.array(sorted(counts), np.int32)
        return SparseVector(numbers, np.array([counts[number] for number in numbers.tolist()], np.float32))

    def number_words(self, text: str) -> dict[str, int]:
        """Return the numbers of a text's words, each once, in order."""
        with self._lock:
            return {word: self._number(word) for word in self._analyzer.splitter(text) if word not in self._stop_words}

    def _number(self, word: str) -> int:
        number = self._numbers.get(word)
        if number is None:
            stem = self._analyzer.stemmer(word) if self._analyzer.stemmer else word
            number = self._numbers[word] = crc32(stem.encode()) & 0x7FFFFFFF
        return number


def bm25_weights(counts: SparseVector, mean_length: float) -> SparseVector:
    """Return what BM25 gives the terms of a text with these counts, before it multiplies by the inverse document
    frequency; `mean_length` is the mean number of terms of a text, repeated ones counted."""
    length_norm = K1 * (1 - B + B * counts.values.sum() / mean_length)
    return SparseVector(counts.indices, counts.values / (counts.values + length_norm))
