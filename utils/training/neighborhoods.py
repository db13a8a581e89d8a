"""Steps of documents that are near each other: what a teacher tells apart there is what a search has to."""

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse

from utils.training.batches import LOOKAHEAD_BATCHES, StepBatchSampler
from utils.training.tokenization import TokenizedExamples

NEIGHBORHOOD_STEPS = 2  # documents that a step's are drawn from, over those that it has
NEIGHBOR_TERMS = 32  # heaviest terms of a sparse vector, by which its neighbors are found
BLOCK_DOCUMENTS = 256  # documents whose neighbors are found at a time; bounds memory, [block, documents] similarities


class NeighborhoodSampler(StepBatchSampler):
    """Samples the positions of each step's examples, all of different documents.

    A step is an example, in shuffled passes over them, and examples of documents drawn from those nearest to its own,
    as balanced topic-aware sampling draws queries of one topic (TAS-B, Hofstätter et al., arXiv 2104.06967). So an
    example may come more than once in an epoch, or not at all. As its document comes with further queries of its own,
    an epoch draws half as many examples as there are, but as many as there are documents.

    Args:
        examples: tokenized examples, with the documents that they share.
        vectors: [documents, dimensions] of all documents that the examples number, sparse rows or a dense array.
        sizes, epochs, seed, rank, world: see StepBatchSampler; a step has no more examples than there are documents.
    """

    def __init__(
        self,
        examples: TokenizedExamples,
        vectors: np.ndarray | scipy.sparse.csr_array,
        sizes: Sequence[int],
        epochs: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.numbers, self.row_of = np.unique(examples.positive_numbers, return_inverse=True)
        sizes = [min(size, max(1, len(self.numbers) // world)) for size in sizes]
        super().__init__(examples.keys, sizes, epochs, seed, rank, world)
        self.members = [examples.members[number] for number in self.numbers.tolist()]
        largest = max(self.sizes) * self.world
        self.neighbors = nearest_documents(vectors[self.numbers], NEIGHBORHOOD_STEPS * largest)

    def _examples_per_epoch(self) -> int:
        return max(len(self.numbers), len(self.texts) // 2)

    @functools.cached_property
    def _order(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        coming = self._passes()
        order: list[int] = []
        for size in self.sizes:
            first = next(coming)
            order += self._step(first, size * self.world, coming, rng)
        return np.array(order, np.int32)

    def _step(self, first: int, size: int, coming: Iterator[int], rng: np.random.Generator) -> list[int]:
        """Return the examples of a step that begins with `first`."""
        near = (
            self.members[row][rng.integers(len(self.members[row]))]
            for row in rng.permutation(self.neighbors[self.row_of[first]])
        )
        batch = [first]
        queries, documents = {self.texts[first][0]}, {self.texts[first][1]}
        repeated: list[int] = []
        for example in itertools.chain(near, itertools.islice(coming, LOOKAHEAD_BATCHES * size)):
            if len(batch) == size:
                return batch
            query, document = self.texts[example]
            if query in queries or document in documents:
                repeated.append(example)
                continue
            batch.append(example)
            queries.add(query)
            documents.add(document)
        return batch + repeated[: size - len(batch)]


def nearest_documents(vectors: np.ndarray | scipy.sparse.csr_array, count: int) -> np.ndarray:
    """Return [documents, up to count] rows of the documents most similar to each, by the cosine of their vectors, in no
    order. Of sparse vectors, the NEIGHBOR_TERMS heaviest terms of the document decide."""
    documents = vectors.shape[0]
    count = min(count, documents - 1)
    norms = np.sqrt(np.asarray((vectors * vectors).sum(axis=1)).ravel())
    if scipy.sparse.issparse(vectors):
        vectors = scipy.sparse.csr_array(scipy.sparse.diags_array(1 / np.maximum(norms, 1e-9)) @ vectors)
    else:
        vectors = vectors / np.maximum(norms, 1e-9)[:, None]
    columns = vectors.T
    found = np.empty((documents, count), np.int32)
    for start in range(0, documents, BLOCK_DOCUMENTS):
        block = vectors[start : start + BLOCK_DOCUMENTS]
        similarities = (_heaviest_terms(block) @ columns).toarray() if scipy.sparse.issparse(block) else block @ columns
        rows = np.arange(len(similarities))
        similarities[rows, start + rows] = -np.inf
        if count:
            found[start + rows] = np.argpartition(-similarities, count - 1)[:, :count]
    return found


def _heaviest_terms(vectors: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Return sparse vectors with the NEIGHBOR_TERMS largest weights of each."""
    kept = []
    for start, end in itertools.pairwise(vectors.indptr):
        largest = np.argsort(-vectors.data[start:end], kind="stable")[:NEIGHBOR_TERMS]
        kept.append(start + np.sort(largest))
    starts = np.cumsum([0, *map(len, kept)])
    positions = np.concatenate(kept)
    return scipy.sparse.csr_array((vectors.data[positions], vectors.indices[positions], starts), shape=vectors.shape)
