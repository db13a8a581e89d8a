"""Training examples as the batches of a training step, on one process or several."""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler

from utils.records import TrainingExample
from utils.splade.encoder import SpladeEncoder
from utils.training.losses import LossInputs


def tokenize_examples(examples: Sequence[TrainingExample], encoder: SpladeEncoder) -> list[dict[str, Any]]:
    """One row an example: the query and the documents (positive first) as texts and as token ids, a key for each
    document, the example's origin, and the teacher's scores of the documents where it has any. Empty documents are left
    out."""
    queries = encoder.tokenize_queries([example.query for example in examples])
    tokens = iter(encoder.tokenize([text for e in examples for text in (e.positive_document, *e.negatives)]))
    rows = []
    for example, query in zip(examples, queries):
        texts = [example.positive_document, *example.negatives]
        keys = [example.positive_id or texts[0], *texts[1:]]
        documents = [next(tokens) for _ in keys]
        if not query or not documents[0]:
            continue
        kept = [i for i, ids in enumerate(documents) if ids]
        row = {"query": query, "documents": [documents[i] for i in kept], "keys": [keys[i] for i in kept]}
        row |= {"query_text": example.query, "texts": [texts[i] for i in kept], "origin": example.origin}
        if example.scores is not None:
            row["scores"] = [example.scores[i] for i in kept]
        rows.append(row)
    return rows


def number_texts(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The queries and the documents of tokenized examples, each once; the rows get `numbers`, [1 + documents], the
    query's and its documents' places among them."""
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    for row in rows:
        row["numbers"] = [queries.setdefault(row["query_text"], len(queries))]
        row["numbers"] += [documents.setdefault(text, len(documents)) for text in row["texts"]]
    return list(queries), list(documents)


class StepBatchSampler(Sampler[list[int]]):
    """Row numbers of each step's examples.

    The rows are shuffled again for each pass and the passes stand one after the other, so that all batches are full. An
    epoch is one of `epochs` equal numbers of steps, together as many passes, of equal lengths where the size stays.

    Args:
        rows: how many there are.
        sizes: queries a step and process, at most a pass; with several, each for an equal share of the examples.
        epochs: passes over the rows.
        seed: of the shuffling.
        rank, world: this process's number, and how many there are; they share a step's examples.
    """

    def __init__(self, rows: int, sizes: Sequence[int], epochs: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.rows, self.seed, self.rank, self.world = rows, seed, rank, world
        sizes = [max(1, min(size, rows // world)) for size in sizes]
        share = rows * epochs / len(sizes)
        steps = [size for size in sizes for _ in range(max(1, round(share / (size * world))))]
        self.steps_an_epoch = -(-len(steps) // epochs)
        self.sizes = steps + [sizes[-1]] * (self.steps_an_epoch * epochs - len(steps))
        self.epoch = 0

    def __len__(self) -> int:
        return self.steps_an_epoch

    def set_epoch(self, epoch: int) -> None:
        """Go on with `epoch`, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.steps_an_epoch
        start = self.world * sum(self.sizes[:first])
        for size in self.sizes[first : first + self.steps_an_epoch]:
            mine = range(start + self.rank * size, start + (self.rank + 1) * size)
            yield [_shuffled(self.rows, self.seed + number // self.rows)[number % self.rows] for number in mine]
            start += self.world * size


@functools.lru_cache(maxsize=2)
def _shuffled(rows: int, seed: int) -> list[int]:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()


def corpus_idf(rows: Sequence[dict[str, Any]], encoder: SpladeEncoder) -> torch.Tensor:
    """[vocabulary] inverse document frequency of each token in the documents of tokenized examples, as in BM25 with
    one added so that none is negative (Robertson and Zaragoza 2009; Lucene), over its mean in their queries; 0 for
    special tokens."""
    documents = {key: ids for row in rows for key, ids in zip(row["keys"], row["documents"])}
    counts = torch.zeros(encoder.model.config.vocab_size)
    for ids in documents.values():
        counts[list(set(ids))] += 1
    idf = torch.log1p((len(documents) - counts + 0.5) / (counts + 0.5))
    idf[encoder.tokenizer.all_special_ids] = 0.0
    asked = idf[[token for row in rows for token in row["query"]]]
    return idf / asked[asked > 0].mean()


def collate(rows: list[dict[str, Any]], encoder: SpladeEncoder, micro_batch: int | None = None) -> dict[str, Any]:
    """All texts of a step: B queries, their positives, then all N negatives.

    Returns:
        texts: what the encoder's forward takes, in parts of at most `micro_batch` texts, of like lengths.
        places: [2 B + N], each text's place in the parts; queries come first, then documents.
        keys: [B + N] int64, the same for documents that are copies of each other.
        owners: [N], whose negative each is.
        teacher: where all rows have scores, [B + N], the teacher's of each document.
        query_numbers, document_numbers: where rows have numbers, [B] and [B + N].
    """
    negatives = [(i, j) for i, row in enumerate(rows) for j in range(1, len(row["documents"]))]
    documents = [(i, 0) for i in range(len(rows))] + negatives
    texts = [rows[i]["documents"][j] for i, j in documents]
    queries = [row["query"] for row in rows]
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
        "keys": torch.tensor([_stable_hash(rows[i]["keys"][j]) for i, j in documents]),
        "owners": torch.tensor([i for i, _ in negatives], dtype=torch.long),
    }
    if "numbers" in rows[0]:
        batch["query_numbers"] = torch.tensor([row["numbers"][0] for row in rows])
        batch["document_numbers"] = torch.tensor([rows[i]["numbers"][1 + j] for i, j in documents])
    if all("scores" in row for row in rows):
        batch["teacher"] = torch.tensor([rows[i]["scores"][j] for i, j in documents], dtype=torch.float32)
    return batch


def gather_step(weights: torch.Tensor, batch: dict[str, Any]) -> LossInputs:
    """The step of a batch that `collate` made, from the weights [2 B + N, V] of its texts as its parts came out one
    after the other. With several processes it is that of all their batches; gradients reach this process's part."""
    count = len(batch["places"]) - len(batch["keys"])
    queries, positives, negatives = weights[batch["places"]].tensor_split([count, 2 * count])
    keys, negative_keys = batch["keys"].tensor_split([count])
    owners = batch["owners"]
    numbers = [batch.get(name) for name in ("query_numbers", "document_numbers")]
    teacher, negative_teacher = batch["teacher"].tensor_split([count]) if "teacher" in batch else (None, None)
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        keys, negative_keys = _gather(keys), _gather(negative_keys)
        if teacher is not None:
            owners = _gather(owners + sum(_rows_per_process(queries)[: torch.distributed.get_rank()]))
            teacher, negative_teacher = _gather(teacher), _gather(negative_teacher)
        if numbers[0] is not None:
            own, others = numbers[1].tensor_split([count])
            numbers = [_gather(numbers[0]), torch.cat([_gather(own), _gather(others)])]
        queries, positives, negatives = _gather(queries), _gather(positives), _gather(negatives)
    keys, count = torch.cat([keys, negative_keys]), len(queries)
    itself = torch.eye(count, len(keys), dtype=torch.bool, device=keys.device)
    false_negatives = (keys[:count, None] == keys) & ~itself
    step = LossInputs(queries, torch.cat([positives, negatives]), false_negatives, None, None, *numbers)
    if teacher is None:
        return step
    # [N, N]: which column of its query's row each negative takes
    columns = 1 + (owners[:, None] == owners).tril(-1).sum(1)
    own = torch.zeros(count, 1 + max([0, *columns.tolist()]), dtype=torch.long, device=keys.device)
    own[:, 0] = torch.arange(count, device=keys.device)
    own[owners, columns] = torch.arange(count, len(keys), device=keys.device)
    scores = teacher.new_full(own.shape, float("-inf"))
    scores[:, 0] = teacher
    scores[owners, columns] = negative_teacher
    return step._replace(own=own, teacher=scores)


def _stable_hash(key: str) -> int:
    """The same in every process, as `hash` is not."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little", signed=True)


def _rows_per_process(rows: torch.Tensor) -> list[int]:
    """How many rows each process has."""
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    return [int(count) for count in counts]


def _gather(rows: torch.Tensor) -> torch.Tensor:
    """[rows, ...] of all processes, one after the other; gradients reach this one's."""
    counts = _rows_per_process(rows)
    padded = torch.cat([rows.detach(), rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])
    all_rows = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(all_rows, padded)
    parts = [part[:count] for part, count in zip(all_rows, counts)]
    parts[torch.distributed.get_rank()] = rows
    return torch.cat(parts)
