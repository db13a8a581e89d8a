"""Scorers: models that score how well a document answers a query, as teachers in distillation and to mine negatives.

A scorer's name is `bm25`, `minilm` (all-MiniLM-L6-v2), or a model folder or hub id. The architecture in the model's
config decides how it scores: a cross-encoder reads query and document together, a dense model takes the cosine
similarity of their vectors, a SPLADE model, as BM25 does, the dot product.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import scipy.sparse

from utils.arguments import parse_weights
from utils.console import print_line, progress_bar
from utils.device import autocast
from utils.journal import Journal, journal_key
from utils.models import load_config, loading, resolve_model
from utils.search.dense import DenseEncoder, import_sentence_transformers, library_options
from utils.search.lexical import BM25Index
from utils.search.vector_cache import encode_cached
from utils.splade.base_encoder import Encoder
from utils.splade.opening import open_encoder
from utils.splade.vectors import to_csr

SAMPLE_PAIRS = 2000  # random pairs that a scorer's mean and deviation are estimated from; more are slower to score
BLOCK_PAIRS = 2000  # pairs scored at a time; bounds memory, [pairs, dimensions] for queries and for documents
BLOCK_QUERIES = 256  # queries searched at a time; bounds memory, [queries, documents] scores
JOURNAL_PAIRS = 1024  # pairs scored between two writes to the journal, the most that an interrupt loses


class Scorer(Protocol):
    """A model opened for lists of queries and documents, which are referred to by their positions."""

    name: str

    def pair_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return [pairs] float32 scores of (query, document) pairs; both arguments are [pairs] positions."""


class VectorScorer:
    """BM25, a dense or a SPLADE model: the score is the dot product of two vectors.

    Args:
        name: for messages.
        queries, documents: [texts, dimensions] vectors, both dense arrays or both scipy's sparse matrices in rows.
    """

    def __init__(self, name: str, queries, documents) -> None:
        self.name, self.queries, self.documents = name, queries, documents

    def pair_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return [pairs] scores, as `Scorer.pair_scores`."""
        scores = np.empty(len(queries), np.float32)
        for start in range(0, len(queries), BLOCK_PAIRS):
            block = slice(start, start + BLOCK_PAIRS)
            left, right = self.queries[queries[block]], self.documents[documents[block]]
            products = left.multiply(right) if scipy.sparse.issparse(left) else left * right
            scores[block] = np.asarray(products.sum(axis=1)).ravel()
        return scores

    def block_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return [queries, documents] scores of each query with each document, both given by position."""
        product = self.queries[queries] @ self.documents[documents].T
        return product.toarray() if scipy.sparse.issparse(product) else product

    def search(self, top_k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield for each query, in order, the positions of its `top_k` best documents, best first, and their scores."""
        count = min(top_k, self.documents.shape[0])
        for start in range(0, self.queries.shape[0], BLOCK_QUERIES):
            product = self.queries[start : start + BLOCK_QUERIES] @ self.documents.T
            for row in product.toarray() if scipy.sparse.issparse(product) else product:
                best = np.argpartition(-row, count - 1)[:count]
                best = best[np.argsort(-row[best], kind="stable")]
                yield best, row[best]


class CrossEncoderScorer:
    """Cross-encoder, by sentence-transformers: the score is its logit.

    Args:
        name: for messages and journal keys.
        model: sentence_transformers.CrossEncoder.
        queries, documents: texts.
        journal: stores scores every JOURNAL_PAIRS pairs; pairs in it are not scored again. Without one scores are
            stored in memory.
    """

    def __init__(
        self, name: str, model, queries: Sequence[str], documents: Sequence[str], journal: Journal | None = None
    ) -> None:
        self.name, self.model, self.queries, self.documents = name, model, queries, documents
        self.journal = journal
        self.score_of = journal.found if journal else {}

    def pair_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return [pairs] scores, as `Scorer.pair_scores`."""
        pairs = [(self.queries[q], self.documents[d]) for q, d in zip(queries, documents)]
        keys = [journal_key(self.name, *pair) for pair in pairs]
        missing = {key: pair for key, pair in zip(keys, pairs) if key not in self.score_of}
        with progress_bar(total=len(missing), desc="scoring", unit="pairs") as bar, autocast(self.model.device):
            for start in range(0, len(missing), JOURNAL_PAIRS):
                part = dict(itertools.islice(missing.items(), start, start + JOURNAL_PAIRS))
                scores = self.model.predict(list(part.values()), activation_fn=_identity, show_progress_bar=False)
                scored = dict(zip(part, scores.tolist()))
                self.journal.add(scored) if self.journal else self.score_of.update(scored)
                bar.update(len(part))
        return np.array([self.score_of[key] for key in keys], np.float32)


class FusedScorer:
    """Weighted sum of the standardized scores of several scorers: the sum of weight * (score - mean) / deviation, with
    each scorer's mean and standard deviation over SAMPLE_PAIRS random pairs. A single scorer's scores are
    unchanged, whatever its weight.

    Args:
        teachers: the scorers to fuse.
        weights: one for each.
        queries, documents: numbers of texts that the scorers were opened with.

    Attributes:
        deviation: standard deviation of the fused scores over the random pairs; 1.0 where they are all equal.
    """

    def __init__(self, scorers: Sequence[Scorer], weights: Sequence[float], queries: int, documents: int) -> None:
        self.name = " + ".join(scorer.name for scorer in scorers)
        self.scorers = scorers
        rng = np.random.default_rng(0)
        pairs = rng.integers(queries, size=SAMPLE_PAIRS), rng.integers(documents, size=SAMPLE_PAIRS)
        samples = [scorer.pair_scores(*pairs) for scorer in scorers]
        self.means, self.scales = [0.0], [1.0]
        if len(samples) > 1:
            self.means = [float(sample.mean()) for sample in samples]
            self.scales = [weight / float(sample.std() or 1.0) for weight, sample in zip(weights, samples)]
        self.deviation = float(self._fuse(samples).std()) or 1.0

    def pair_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return [pairs] scores, as `Scorer.pair_scores`."""
        return self._fuse([scorer.pair_scores(queries, documents) for scorer in self.scorers])

    def block_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return [queries, documents] scores; all scorers have to be of the class VectorScorer."""
        return self._fuse([scorer.block_scores(queries, documents) for scorer in self.scorers])

    def _fuse(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Return the weighted sum of the standardized scores, one array of each scorer."""
        return sum(scale * (part - mean) for part, mean, scale in zip(scores, self.means, self.scales))


def open_fused_scorer(
    names: Sequence[str], queries: Sequence[str], documents: Sequence[str], *options: Any, **named_options: Any
) -> FusedScorer:
    """Open the scorers given as `name` or `name=weight` (1 by default) and fuse their scores.

    The options and errors are those of `open_scorer`.

    Raises:
        ValueError: see `parse_teachers`.
    """
    weights = parse_teachers(names)
    scorers = [open_scorer(name, queries, documents, *options, **named_options) for name in weights]
    return FusedScorer(scorers, list(weights.values()), len(queries), len(documents))


def parse_teachers(names: Sequence[str]) -> dict[str, float]:
    """Return the weights of the scorers given as `name` or `name=weight` (1 by default), by name.

    Raises:
        ValueError: a name occurs twice, a weight is not a positive number, or there is one without others to weigh it
            against.
    """
    weights = parse_weights(names, "teacher")
    if len(weights) == 1 and set(weights.values()) != {1.0}:
        raise ValueError(
            f"teacher '{names[0]}': the weight of a single teacher has no effect; leave out what follows ="
        )
    return weights


def open_scorer(
    name: str,
    queries: Sequence[str],
    documents: Sequence[str],
    device: str | None = None,
    threads: int | None = None,
    journal: Journal | None = None,
    language: str | None = None,
) -> Scorer:
    """Open the scorer called `name` for these texts, which are encoded now, except for a cross-encoder. The vectors of
    a dense model are kept (utils.search.vector_cache).

    Args:
        journal: stores the scores of a cross-encoder.
        language: of the texts, for BM25 (utils.search.lexical.BM25Index).

    Raises:
        ValueError, OSError: the model cannot be loaded, or there is no such language.
        ImportError: it needs sentence-transformers, which is not installed.
    """
    if name == "bm25":
        index = BM25Index(documents, language)
        print_line(index.description)
        return VectorScorer(name, index.query_matrix(queries), index.document_matrix())
    architecture = _architecture(name)
    if architecture.endswith("ForMaskedLM"):
        return splade_scorer(name, open_encoder(name, device, threads=threads), queries, documents)
    if architecture.endswith("ForSequenceClassification"):
        return CrossEncoderScorer(name, _open_cross_encoder(name, device), queries, documents, journal)
    dense = DenseEncoder(name, device)
    vectors = encode_cached(name, dense.identity, [*queries, *documents], dense.encode)
    return VectorScorer(name, vectors[: len(queries)], vectors[len(queries) :])


def open_text_encoder(
    name: str, device: str | None = None, threads: int | None = None
) -> Callable[[Sequence[str]], np.ndarray | scipy.sparse.csr_array]:
    """Return a function that encodes texts as [texts, dimensions] L2-normalized vectors, by a dense or a SPLADE model.

    Raises:
        ValueError, OSError: the model cannot be loaded, or is a cross-encoder.
        ImportError: it needs sentence-transformers, which is not installed.
    """
    architecture = _architecture(name)
    if architecture.endswith("ForSequenceClassification"):
        raise ValueError(f"'{name}' is a cross-encoder and has no vectors; name a dense or a SPLADE model")
    if architecture.endswith("ForMaskedLM"):
        encoder = open_encoder(name, device, threads=threads)

        def encode_sparse(texts: Sequence[str]) -> scipy.sparse.csr_array:
            rows = to_csr(encoder.encode(texts), encoder.vocabulary_size)
            norms = np.sqrt(rows.multiply(rows).sum(axis=1))
            return scipy.sparse.diags_array(1 / np.maximum(norms, 1e-9)) @ rows  # 1e-9 keeps zero vectors zero

        return encode_sparse
    return DenseEncoder(name, device).encode


def is_cross_encoder(name: str) -> bool:
    """Return whether the config of the model called `name` says that it is a cross-encoder.

    Raises:
        ValueError, OSError: see utils.models.load_config.
    """
    return _architecture(name).endswith("ForSequenceClassification")


def open_reranker(name: str, device: str | None = None) -> Callable[[str, Sequence[str]], np.ndarray]:
    """Return a function that scores texts for a query, [texts], by a cross-encoder: its logits.

    Raises:
        ValueError, OSError: the model cannot be loaded, or is no cross-encoder.
        ImportError: it needs sentence-transformers, which is not installed.
    """
    if not is_cross_encoder(name):
        raise ValueError(f"'{name}' is no cross-encoder, which reads query and text together; it cannot rerank")
    model = _open_cross_encoder(name, device)

    def score(query: str, texts: Sequence[str]) -> np.ndarray:
        pairs = [(query, text) for text in texts]
        with autocast(model.device):
            return model.predict(pairs, activation_fn=_identity, show_progress_bar=False)

    return score


def _open_cross_encoder(name: str, device: str | None):
    library = import_sentence_transformers(name)
    with loading(name, "a cross-encoder"):
        return library.CrossEncoder(resolve_model(name), **library_options(device))


def _architecture(name: str) -> str:
    """Return the class that the model's config names, "" if it names none."""
    return (load_config(name).architectures or [""])[0]


def splade_scorer(name: str, encoder: Encoder, queries: Sequence[str], documents: Sequence[str]) -> VectorScorer:
    """Encode queries and documents with a loaded SPLADE model, one that is trained in its `eval` mode, and return their
    scorer."""
    if encoder.query_weights is None:
        query_vectors = encoder.encode_stream(queries, encoder.query_max_length, show_progress=True)
    else:
        query_vectors = map(encoder.encode_query, queries)
    document_vectors = encoder.encode_stream(documents, show_progress=True)
    return VectorScorer(
        name, *(to_csr(vectors, encoder.vocabulary_size) for vectors in (query_vectors, document_vectors))
    )


def _identity(logits):
    return logits
