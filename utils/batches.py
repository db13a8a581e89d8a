"""Training examples as the batches of a training step."""

from collections.abc import Sequence
from typing import Any

import torch

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
    """All texts of a step: B queries, their positives, then all negatives.

    Returns:
        texts: what the encoder's forward takes, in parts of at most `micro_batch` texts, of like lengths.
        places: [B + D], each text's place in the parts; queries come first, then documents.
        false_negatives: [B, D], True for documents that are another copy of the query's positive.
        own, teacher: where all rows have scores, [B, N]: which documents are the query's own, and the teacher's scores
            of them, -inf where it has fewer than N.
    """
    documents = [row["documents"][0] for row in rows]
    keys = [row["keys"][0] for row in rows]
    own = [[i] for i in range(len(rows))]
    for row, places in zip(rows, own):
        places += range(len(documents), len(documents) + len(row["documents"]) - 1)
        documents += row["documents"][1:]
        keys += row["keys"][1:]
    same = [[i != j and row["keys"][0] == key for j, key in enumerate(keys)] for i, row in enumerate(rows)]
    texts = [row["query"] for row in rows] + documents
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    size = micro_batch or len(texts)
    parts, places = [], torch.empty(len(texts), dtype=torch.long)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        inputs, within = encoder.group_by_length([texts[i] for i in part])
        parts.append(inputs)
        places[part] = start + within
    batch = {"texts": parts, "places": places, "false_negatives": torch.tensor(same)}
    if all("scores" in row for row in rows):
        batch["own"] = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in own], batch_first=True)
        scores = [torch.tensor(row["scores"], dtype=torch.float32) for row in rows]
        batch["teacher"] = torch.nn.utils.rnn.pad_sequence(scores, batch_first=True, padding_value=float("-inf"))
    return batch


def split(weights: torch.Tensor, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [B + D, V] of a batch's texts, as its parts came out one after the other -> those of the queries, [B, V],
    and of the documents, [D, V]."""
    return weights[batch["places"]].tensor_split([len(batch["false_negatives"])])
