"""Hard negatives: passages that look like an answer to a query and are none."""

from collections.abc import Sequence

from utils.lexical import BM25Index
from utils.records import Chunk, TrainingExample


def add_bm25_negatives(
    examples: Sequence[TrainingExample],
    chunks: Sequence[Chunk],
    per_example: int,
    skip_top: int = 30,
    depth: int = 100,
) -> None:
    """Give each example `per_example` negatives from BM25's ranks `skip_top` to `depth`, evenly spread over them.

    The top ranks are left out because they often answer a query made from another passage as well as its own passage
    does. Never a passage of the positive's own document, nor one with the positive's text.
    """
    if not per_example or not chunks:
        return
    texts = [chunk.full_text for chunk in chunks]
    by_id = {chunk.id: position for position, chunk in enumerate(chunks)}
    keys = [_key(chunk.text) for chunk in chunks]
    hits = BM25Index(texts).search([example.query for example in examples], depth)
    for example, ranking in zip(examples, hits):
        positive = by_id[example.positive_id]
        own = chunks[positive].document_id
        candidates = []
        seen = {keys[positive], _key(example.positive_document)}
        for position, _ in ranking[skip_top:]:
            if chunks[position].document_id != own and keys[position] not in seen:
                seen.add(keys[position])
                candidates.append(texts[position])
        step = max(1, len(candidates) // per_example)
        example.negative_documents = candidates[::step][:per_example]


def _key(text: str) -> str:
    """What two copies of a passage share whatever their spacing and case."""
    return " ".join(text.lower().split())
