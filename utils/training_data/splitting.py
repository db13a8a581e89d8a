"""Training, validation and test data: examples split by the documents that they were made from."""

import random
from collections.abc import Mapping, Sequence

from utils.records import TrainingExample


def split_by_document(
    examples: Sequence[TrainingExample],
    shares: Sequence[float],
    seed: int,
    family_of: Mapping[str, int] | None = None,
) -> list[list[TrainingExample]]:
    """Split the examples into as many parts as there are shares, the documents of a family in one part.

    Each part but the first gets its share of the documents: at least one where the share is above 0 and there is one
    left beside the first part's.

    Args:
        shares: of the parts, in any unit.
        seed: of the order in which documents are dealt out.
        family_of: document id -> its family; a document that it lacks is a family of its own.
    """
    families: dict[str | int, list[str]] = {}
    for source in sorted({example.source for example in examples}):
        families.setdefault((family_of or {}).get(source, source), []).append(source)
    order = list(families.values())
    random.Random(seed).shuffle(order)
    total, position = sum(map(len, order)), 1  # the first one is the first part's
    part_of: dict[str, int] = {}
    for part, share in enumerate(shares[1:], 1):
        wanted, taken = max(1, round(total * share / sum(shares))) if share else 0, 0
        while taken < wanted and position < len(order):
            part_of.update(dict.fromkeys(order[position], part))
            taken += len(order[position])
            position += 1
    parts: list[list[TrainingExample]] = [[] for _ in shares]
    for example in examples:
        parts[part_of.get(example.source, 0)].append(example)
    return parts
