"""Training examples as the batches of a training step, on one process or several."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed

from utils.encoder import SpladeEncoder
from utils.records import TrainingExample


def tokenised(examples: Sequence[TrainingExample], encoder: SpladeEncoder) -> list[dict[str, Any]]:
    """One row an example: token ids of query and documents (positive first), a key for each document, and the
    teacher's scores of them where the example has any. Empty documents are left out."""
    queries = encoder.tokenize([example.query for example in examples], encoder.query_max_length)
    tokens = iter(encoder.tokenize([text for e in examples for text in (e.positive_document, *e.negatives)]))
    rows = []
    for example, query in zip(examples, queries):
        keys = [example.positive_id or example.positive_document, *example.negatives]
        documents = [next(tokens) for _ in keys]
        if not query or not documents[0]:
            continue
        kept = [i for i, ids in enumerate(documents) if ids]
        row = {"query": query, "documents": [documents[i] for i in kept], "keys": [keys[i] for i in kept]}
        if example.scores is not None:
            row["scores"] = [example.scores[i] for i in kept]
        rows.append(row)
    return rows


def collate(rows: list[dict[str, Any]], encoder: SpladeEncoder, micro_batch: int | None = None) -> dict[str, Any]:
    """All texts of a step: B queries, their positives, then all N negatives.

    Returns:
        texts: what the encoder's forward takes, in parts of at most `micro_batch` texts, of like lengths.
        places: [2 B + N], each text's place in the parts; queries come first, then documents.
        keys: [B + N] int64, the same for documents that are copies of each other.
        owners: [N], whose negative each is.
        teacher: where all rows have scores, [B + N], the teacher's of each document.
    """
    negatives = [(i, j) for i, row in enumerate(rows) for j in range(1, len(row["documents"]))]
    documents = [(i, 0) for i in range(len(rows))] + negatives
    texts = [row["query"] for row in rows] + [rows[i]["documents"][j] for i, j in documents]
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    size = micro_batch or len(texts)
    parts, places = [], torch.empty(len(texts), dtype=torch.long)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        inputs, within = encoder.group_by_length([texts[i] for i in part])
        parts.append(inputs)
        places[part] = start + within
    batch = {
        "texts": parts,
        "places": places,
        "keys": torch.tensor([_number(rows[i]["keys"][j]) for i, j in documents]),
        "owners": torch.tensor([i for i, _ in negatives], dtype=torch.long),
    }
    if all("scores" in row for row in rows):
        batch["teacher"] = torch.tensor([rows[i]["scores"][j] for i, j in documents], dtype=torch.float32)
    return batch


class Step(NamedTuple):
    """What a step's loss is taken of; B queries and B + N documents, of all processes.

    Attributes:
        queries: [B, V] weights.
        documents: [B + N, V] weights; document i is query i's positive, the others are hard negatives.
        false_negatives: [B, B + N], True for documents that are another copy of the query's positive.
        own: [B, 1 + most negatives], which documents are the query's own, the positive first.
        teacher: the teacher's scores of them, -inf where a query has fewer; None without a teacher.
    """

    queries: torch.Tensor
    documents: torch.Tensor
    false_negatives: torch.Tensor
    own: torch.Tensor
    teacher: torch.Tensor | None


def step_of(weights: torch.Tensor, batch: dict[str, Any]) -> Step:
    """The step of a batch that `collate` made, from the weights [2 B + N, V] of its texts as its parts came out one
    after the other. With several processes it is that of all their batches; gradients reach this process's part."""
    count = len(batch["places"]) - len(batch["keys"])
    queries, positives, negatives = weights[batch["places"]].tensor_split([count, 2 * count])
    keys, negative_keys = batch["keys"].tensor_split([count])
    owners = batch["owners"]
    teacher, negative_teacher = batch["teacher"].tensor_split([count]) if "teacher" in batch else (None, None)
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        rank = torch.distributed.get_rank()
        owners = _gather(owners + sum(_counts(queries)[:rank]))
        keys, negative_keys = _gather(keys), _gather(negative_keys)
        queries, positives, negatives = _gather(queries), _gather(positives), _gather(negatives)
        if teacher is not None:
            teacher, negative_teacher = _gather(teacher), _gather(negative_teacher)
    keys, count = torch.cat([keys, negative_keys]), len(queries)
    itself = torch.eye(count, len(keys), dtype=torch.bool, device=keys.device)
    false_negatives = (keys[:count, None] == keys) & ~itself
    own, columns = torch.arange(count, device=keys.device)[:, None], torch.zeros_like(owners)
    if len(owners):
        earlier = owners[:, None] == owners  # [N, N]: which column of its query's row each negative takes
        columns = 1 + earlier.tril(-1).sum(1)
        own = torch.cat([own, own.new_zeros(count, int(columns.max()))], 1)
        own[owners, columns] = torch.arange(count, len(keys), device=keys.device)
    if teacher is not None:
        scores = teacher.new_full(own.shape, float("-inf"))
        scores[:, 0] = teacher
        scores[owners, columns] = negative_teacher
        teacher = scores
    return Step(queries, torch.cat([positives, negatives]), false_negatives, own, teacher)


def _number(key: str) -> int:
    """The same in every process, as `hash` is not."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little", signed=True)


def _counts(rows: torch.Tensor) -> list[int]:
    """How many rows each process has."""
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    return [int(count) for count in counts]


def _gather(rows: torch.Tensor) -> torch.Tensor:
    """[rows, ...] of all processes, one after the other; gradients reach this one's."""
    counts = _counts(rows)
    padded = torch.cat([rows.detach(), rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])
    all_rows = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(all_rows, padded)
    parts = [part[:count] for part, count in zip(all_rows, counts)]
    parts[torch.distributed.get_rank()] = rows
    return torch.cat(parts)
