"""Queries that fail today, and the passages nearest to them, which get more training queries.

What was lost on test data may be used here without its judgments: no seed query becomes a training query, and the
passages of documents that are judged for it get none for its sake.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from utils.documents.families import Families
from utils.documents.normalization import split_words
from utils.records import Chunk, SeedQuery, TrainingExample, describe_error, read_json_records
from utils.search.lexical import BM25Index
from utils.training_data.quality import DUPLICATE_QUERY_JACCARD, Rejected, filter_examples

SEED_PASSAGES = 5  # nearest passages of a seed query that get more queries
SEARCHED = 100  # BM25's ranks that these are taken from, as judged documents are left out


def read_seed_queries(path: str | Path) -> list[SeedQuery]:
    """Read seed queries, a JSON list or JSON Lines.

    Raises:
        ValueError: a malformed line, a missing or ill-typed field, an empty query, or no record.
        OSError: the file cannot be read.
    """
    seeds = []
    for place, value in read_json_records(Path(path)):
        try:
            seeds.append(SeedQuery.model_validate(value))
        except ValidationError as error:
            raise ValueError(f"{place}: {describe_error(error)}") from None
        if not split_words(seeds[-1].query):
            raise ValueError(f"{place}: field 'query': has no words")
    if not seeds:
        raise ValueError(f"{path}: holds no queries")
    return seeds


def nearest_passages(
    seeds: Sequence[SeedQuery], passages: Sequence[Chunk], families: Families, language: str | None = None
) -> dict[str, list[str]]:
    """Return the seed queries by the id of each passage that is among the SEED_PASSAGES nearest to one, by BM25. A
    document that is judged for a query, and those of its family, are left out of that query's.

    Args:
        families: of the documents of `passages`.
        language: of the texts, see utils.search.lexical.BM25Index.
    """
    index = BM25Index([passage.full_text for passage in passages], language) if passages else None
    hits = index.search([seed.query for seed in seeds], SEARCHED) if index else []
    near: dict[str, list[str]] = defaultdict(list)
    for seed, ranking in zip(seeds, hits):
        judged = {families.family_of[document] for document in seed.judged if document in families.family_of}
        found = (passages[position] for position, _ in ranking)
        kept = [passage for passage in found if families.family_of[passage.document_id] not in judged]
        for passage in kept[:SEED_PASSAGES]:
            near[passage.id].append(seed.query)
    return dict(near)


def filter_additions(
    examples: Sequence[TrainingExample], additions: Sequence[TrainingExample]
) -> tuple[list[TrainingExample], list[Rejected]]:
    """Return the additions that pass `filter_examples` beside the examples of their passages, without those that these
    have word for word; and what was rejected."""
    known, added = defaultdict(list), defaultdict(list)  # examples by passage
    for group, members in ((known, examples), (added, additions)):
        for example in members:
            group[example.positive_id].append(example)
    kept, rejected = [], []
    for passage, new in added.items():
        queries = {example.query for example in known[passage]}
        passed, failed = filter_examples(
            [*known[passage], *(example for example in new if example.query not in queries)]
        )
        kept += passed[len(known[passage]) :]
        rejected += failed
    return kept, rejected


def drop_seed_queries(
    examples: Sequence[TrainingExample], seeds: Sequence[SeedQuery]
) -> tuple[list[TrainingExample], list[Rejected]]:
    """Return the examples whose query says something else than each seed query, and the others as rejected: nearly the
    same words, as for queries of one passage."""
    words = [(set(split_words(seed.query)), seed.query) for seed in seeds]
    kept, rejected = [], []
    for example in examples:
        own = set(split_words(example.query))
        same = (text for seed, text in words if len(own & seed) >= DUPLICATE_QUERY_JACCARD * len(own | seed))
        if text := next(same, None):
            rejected.append(Rejected("seed query", example.query, f"it says what the seed query '{text}' says"))
        else:
            kept.append(example)
    return kept, rejected
