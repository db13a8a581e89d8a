"""From training examples to the batches of a step, and from a batch's weights to the inputs of its loss."""

import functools
import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler

from utils.splade.encoder import SpladeEncoder
from utils.training.losses import LossInputs
from utils.training.tokenization import TokenizedExample

LOOKAHEAD_BATCHES = 4  # examples that are looked at for one without a repeated text, over the size of the batch


class StepBatchSampler(Sampler[list[int]]):
    """Samples the positions of each step's examples.

    The examples are shuffled anew for each pass, and the passes follow each other without a gap, so that all batches
    are full. An epoch is 1 / `epochs` of all steps; with one batch size, that is about one pass over the examples. An
    example whose query or positive document is in the batch already waits for the next one, unless there is no other
    within LOOKAHEAD_BATCHES.

    Args:
        texts: [examples] keys of each example's query and positive document.
        sizes: batch sizes per process, one after the other for equal shares of the examples; each at most
            examples // world.
        epochs: passes over the examples.
        seed: of the shuffling.
        rank, world: this process's number, and how many processes share a step's examples.
    """

    def __init__(
        self,
        texts: Sequence[tuple[int, int]],
        sizes: Sequence[int],
        epochs: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.texts, self.seed, self.rank, self.world = texts, seed, rank, world
        sizes = [max(1, min(size, len(texts) // world)) for size in sizes]
        share = self._examples_per_epoch() * epochs / len(sizes)
        steps = [size for size in sizes for _ in range(math.ceil(share / (size * world)))]
        self.steps_per_epoch = -(-len(steps) // epochs)
        self.sizes = steps + [sizes[-1]] * (self.steps_per_epoch * epochs - len(steps))
        self.epoch = 0

    def _examples_per_epoch(self) -> int:
        """Return how many examples are drawn in an epoch."""
        return len(self.texts)

    def __len__(self) -> int:
        return self.steps_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Go on with `epoch`, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.steps_per_epoch
        start = self.world * sum(self.sizes[:first])
        for size in self.sizes[first : first + self.steps_per_epoch]:
            own = start + self.rank * size
            yield self._order[own : own + size].tolist()
            start += self.world * size

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """Positions of the examples of all steps, of all epochs and processes."""
        waiting: deque[int] = deque()
        coming = self._passes()
        order = []
        for size in self.sizes:
            size *= self.world
            batch: list[int] = []
            repeated: list[int] = []
            queries: set[int] = set()
            documents: set[int] = set()
            while len(batch) < size and len(batch) + len(repeated) < LOOKAHEAD_BATCHES * size:
                example = waiting.popleft() if waiting else next(coming)
                query, document = self.texts[example]
                if query in queries or document in documents:
                    repeated.append(example)
                else:
                    batch.append(example)
                    queries.add(query)
                    documents.add(document)
            missing = size - len(batch)
            order += batch + repeated[:missing]
            waiting.extendleft(reversed(repeated[missing:]))
        return np.array(order, np.int32)

    def _passes(self) -> Iterator[int]:
        """Yield the positions of all examples in random order, pass after pass."""
        for seed in itertools.count(self.seed):
            yield from torch.randperm(len(self.texts), generator=torch.Generator().manual_seed(seed)).tolist()


def collate(
    examples: Sequence[TokenizedExample], encoder: SpladeEncoder, micro_batch: int | None = None
) -> dict[str, Any]:
    """Collate a step's B queries, S further queries of their positives, B positives and N negatives into parts of
    similar lengths.

    Returns:
        texts: inputs of the encoder's forward, in parts of at most `micro_batch` texts, the longest first.
        places: [2 B + S + N], the position among the parts' texts of each query, further query, positive and negative,
            in this order.
        keys: [B + N], which documents they are, see TokenizedExample.
        queries: of the B queries, what their rows of the loss are made of, see `_query_tensors`.
        siblings: of the S further queries, the same.
        owners: [N], the query that each negative belongs to.
        teacher: where all examples have scores, [B + N], the teacher's of each document.
        document_indices: [B + N], the numbers of the documents.
    """
    negatives = [(i, j) for i, example in enumerate(examples) for j in range(1, len(example.documents))]
    documents = [(i, 0) for i in range(len(examples))] + negatives
    texts = [examples[i].documents[j] for i, j in documents]
    siblings = [(i, sibling) for i, example in enumerate(examples) for sibling in example.siblings]
    queries = [example.query for example in examples] + [sibling.ids for _, sibling in siblings]
    if encoder.query_weights is None:
        texts = queries + texts
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    size = micro_batch or len(texts)
    parts, places = [], torch.empty(len(texts), dtype=torch.long)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        inputs, within = encoder.group_by_length([texts[i] for i in part])
        parts.append(inputs)
        places[part] = start + within
    if encoder.query_weights is not None:
        ids = [torch.tensor(query) for query in queries]
        parts[-1]["query_ids"] = pad_sequence(ids, True, encoder.tokenizer.pad_token_id)
        places = torch.cat([len(texts) + torch.arange(len(queries)), places])
    batch = {
        "texts": parts,
        "places": places,
        "keys": torch.tensor([examples[i].keys[j] for i, j in documents]),
        "queries": _query_tensors([(e.query_index, e.answers, e.document_indices[0], e.copied) for e in examples]),
        "siblings": _query_tensors(
            [(s.index, s.answers, examples[i].document_indices[0], s.copied) for i, s in siblings]
        ),
        "owners": torch.tensor([i for i, _ in negatives], dtype=torch.long),
        "document_indices": torch.tensor([examples[i].document_indices[j] for i, j in documents]),
    }
    if all(example.scores is not None for example in examples):
        batch["teacher"] = torch.tensor([examples[i].scores[j] for i, j in documents], dtype=torch.float32)
    return batch


def _query_tensors(queries: Sequence[tuple[int, list[int], int, bool]]) -> dict[str, torch.Tensor]:
    """Return tensors of queries, each given as its number, the keys of all documents that are a positive of it, the
    number of the document that it is here with, and whether it stands in that one.

    Returns:
        indices, documents, copied: [queries].
        answers: [A], keys of the documents that are positives of a query, one query's after the other's.
        answer_owners: [A], the query that each of them answers.
    """
    return {
        "indices": torch.tensor([index for index, *_ in queries], dtype=torch.long),
        "documents": torch.tensor([document for _, _, document, _ in queries], dtype=torch.long),
        "copied": torch.tensor([copied for *_, copied in queries], dtype=torch.bool),
        "answers": torch.tensor([key for _, keys, _, _ in queries for key in keys], dtype=torch.long),
        "answer_owners": torch.tensor([i for i, query in enumerate(queries) for _ in query[1]], dtype=torch.long),
    }


def gather_step(weights: torch.Tensor, batch: dict[str, Any]) -> LossInputs:
    """Gather the batches of all processes as the loss's inputs; gradients reach this process's rows alone.

    Args:
        weights: [2 B + S + N, V] term weights of the batch's parts, concatenated in their order.
        batch: as `collate` made it.
    """
    count, extra = len(batch["queries"]["indices"]), len(batch["siblings"]["indices"])
    rows = weights.index_select(0, batch["places"]).tensor_split([count, count + extra, 2 * count + extra])
    queries, siblings, positives, negatives = rows
    keys, negative_keys = batch["keys"].tensor_split([count])
    document_indices, negative_indices = batch["document_indices"].tensor_split([count])
    own, further, owners = batch["queries"], batch["siblings"], batch["owners"]
    teacher, negative_teacher = batch["teacher"].tensor_split([count]) if "teacher" in batch else (None, None)
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        keys, negative_keys = _gather(keys), _gather(negative_keys)
        document_indices, negative_indices = _gather(document_indices), _gather(negative_indices)
        own, further = _gather_queries(own), _gather_queries(further)
        if teacher is not None:
            owners = _gather(owners + sum(_rows_per_process(queries)[: torch.distributed.get_rank()]))
            teacher, negative_teacher = _gather(teacher), _gather(negative_teacher)
        queries, siblings = _gather(queries), _gather(siblings)
        positives, negatives = _gather(positives), _gather(negatives)
    keys, count = torch.cat([keys, negative_keys]), len(queries)
    document_indices = torch.cat([document_indices, negative_indices])
    own_positive = torch.eye(count, len(keys), dtype=torch.bool, device=keys.device)
    positive_of_siblings = further["documents"][:, None] == document_indices
    false_negatives = torch.cat(
        [_false_negatives(own, own_positive, keys), _false_negatives(further, positive_of_siblings, keys)]
    )
    queries, indices = torch.cat([queries, siblings]), torch.cat([own["indices"], further["indices"]])
    documents = torch.cat([positives, negatives])
    inputs = LossInputs(queries, documents, count, false_negatives, None, None, indices, document_indices)
    if teacher is None:
        return inputs
    # [N]: each negative's column in its query's row, 1 + the number of that query's earlier negatives.
    columns = 1 + (owners[:, None] == owners).tril(-1).sum(1)
    own_documents = torch.zeros(count, 1 + max([0, *columns.tolist()]), dtype=torch.long, device=keys.device)
    own_documents[:, 0] = torch.arange(count, device=keys.device)
    own_documents[owners, columns] = torch.arange(count, len(keys), device=keys.device)
    scores = teacher.new_full(own_documents.shape, float("-inf"))
    scores[:, 0] = teacher
    scores[owners, columns] = negative_teacher
    return inputs._replace(own_documents=own_documents, teacher=scores)


def _false_negatives(queries: dict[str, torch.Tensor], positives: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return [queries, documents], True for documents that no row is to be compared with: positives of the query other
    than its own one here, and that one where the query stands in it.

    Args:
        queries: see `_query_tensors`.
        positives: [queries, documents], True for a query's own positive.
        keys: [documents].
    """
    hits = (queries["answers"][:, None] == keys).int()  # (A, documents)
    answered = hits.new_zeros(positives.shape).index_add_(0, queries["answer_owners"], hits) > 0
    return answered & ~positives | positives & queries["copied"][:, None]


def _gather_queries(queries: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gather `_query_tensors` of all processes."""
    first = sum(_rows_per_process(queries["indices"])[: torch.distributed.get_rank()])
    return {name: _gather(rows + first if name == "answer_owners" else rows) for name, rows in queries.items()}


def _rows_per_process(rows: torch.Tensor) -> list[int]:
    """Return how many rows each process has."""
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    return [int(count) for count in counts]


def _gather(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate [rows, ...] of all processes, in order of rank; gradients reach this process's rows."""
    counts = _rows_per_process(rows)
    padded = torch.cat([rows.detach(), rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])
    all_rows = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(all_rows, padded)
    parts = [part[:count] for part, count in zip(all_rows, counts)]
    parts[torch.distributed.get_rank()] = rows
    return torch.cat(parts)
