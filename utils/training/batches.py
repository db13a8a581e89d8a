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
        share = len(texts) * epochs / len(sizes)
        steps = [size for size in sizes for _ in range(math.ceil(share / (size * world)))]
        self.steps_per_epoch = -(-len(steps) // epochs)
        self.sizes = steps + [sizes[-1]] * (self.steps_per_epoch * epochs - len(steps))
        self.epoch = 0

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
    """Collate a step's B queries, B positives and N negatives into parts of similar lengths.

    Returns:
        texts: inputs of the encoder's forward, in parts of at most `micro_batch` texts, the longest first.
        places: [2 B + N], the position among the parts' texts of each query, positive and negative, in this order.
        keys: [B + N], which documents they are, see TokenizedExample.
        answers: [A], keys of the documents that are positives of a query, one query's after the other's.
        answer_owners: [A], the query that each of them answers.
        owners: [N], the query that each negative belongs to.
        teacher: where all examples have scores, [B + N], the teacher's of each document.
        query_indices, document_indices: [B] and [B + N], the numbers of the texts.
    """
    negatives = [(i, j) for i, example in enumerate(examples) for j in range(1, len(example.documents))]
    documents = [(i, 0) for i in range(len(examples))] + negatives
    texts = [examples[i].documents[j] for i, j in documents]
    queries = [example.query for example in examples]
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
        "answers": torch.tensor([key for example in examples for key in example.answers]),
        "answer_owners": torch.tensor([i for i, example in enumerate(examples) for _ in example.answers]),
        "owners": torch.tensor([i for i, _ in negatives], dtype=torch.long),
        "query_indices": torch.tensor([example.query_index for example in examples]),
        "document_indices": torch.tensor([examples[i].document_indices[j] for i, j in documents]),
    }
    if all(example.scores is not None for example in examples):
        batch["teacher"] = torch.tensor([examples[i].scores[j] for i, j in documents], dtype=torch.float32)
    return batch


def gather_step(weights: torch.Tensor, batch: dict[str, Any]) -> LossInputs:
    """Gather the batches of all processes as the loss's inputs; gradients reach this process's rows alone.

    Args:
        weights: [2 B + N, V] term weights of the batch's parts, concatenated in their order.
        batch: as `collate` made it.
    """
    count = len(batch["places"]) - len(batch["keys"])
    queries, positives, negatives = weights[batch["places"]].tensor_split([count, 2 * count])
    keys, negative_keys = batch["keys"].tensor_split([count])
    owners, answers, answer_owners = batch["owners"], batch["answers"], batch["answer_owners"]
    indices = [batch["query_indices"], batch["document_indices"]]
    teacher, negative_teacher = batch["teacher"].tensor_split([count]) if "teacher" in batch else (None, None)
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        keys, negative_keys = _gather(keys), _gather(negative_keys)
        first = sum(_rows_per_process(queries)[: torch.distributed.get_rank()])
        answers, answer_owners = _gather(answers), _gather(answer_owners + first)
        if teacher is not None:
            owners = _gather(owners + first)
            teacher, negative_teacher = _gather(teacher), _gather(negative_teacher)
        of_positives, of_negatives = indices[1].tensor_split([count])
        indices = [_gather(indices[0]), torch.cat([_gather(of_positives), _gather(of_negatives)])]
        queries, positives, negatives = _gather(queries), _gather(positives), _gather(negatives)
    keys, count = torch.cat([keys, negative_keys]), len(queries)
    own_positive = torch.eye(count, len(keys), dtype=torch.bool, device=keys.device)
    hits = (answers[:, None] == keys).int()  # (A, B + N)
    answered = hits.new_zeros(count, len(keys)).index_add_(0, answer_owners, hits) > 0
    false_negatives = answered & ~own_positive
    inputs = LossInputs(queries, torch.cat([positives, negatives]), false_negatives, None, None, *indices)
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
