"""Hard negatives by BM25: passages that share words with a query but do not answer it."""

from collections.abc import Sequence

from utils.console import print_line
from utils.documents.families import Families
from utils.documents.normalization import text_key
from utils.records import Chunk, TrainingExample
from utils.search.lexical import BM25Index
from utils.training_data.negatives_mined import LOWEST_RANK, evenly_spaced, rank_window


def add_bm25_negatives(
    examples: Sequence[TrainingExample],
    chunks: Sequence[Chunk],
    per_example: int,
    families: Families,
    language: str | None = None,
) -> int:
    """Append up to `per_example` hard negatives to each example whose `positive_id` is a chunk's, in place, and return
    how many there are in all.

    Candidates copy neither the positive nor each other, none is related to the positive, and none is from the family of
    a document that holds a positive of the same query. Negatives are taken at equal steps from the `rank_window` of
    these, BM25's ranks 31 to 100 of 600 chunks or more; the first ones are skipped because they often answer the query
    as well as the passage that it was made from.

    Args:
        families: of the documents of `chunks`.
        language: of the texts, see utils.search.lexical.BM25Index.
    """
    by_id = {chunk.id: position for position, chunk in enumerate(chunks)}
    examples = [example for example in examples if example.positive_id in by_id]
    if not per_example or not examples:
        return 0
    texts = [chunk.full_text for chunk in chunks]
    keys = [text_key(chunk.text) for chunk in chunks]
    index = BM25Index(texts, language)
    print_line(index.description)
    hits = index.search([example.query for example in examples], LOWEST_RANK)
    answers: dict[str, set[int]] = {}  # query -> families of the documents that answer it
    for example in examples:
        document = chunks[by_id[example.positive_id]].document_id
        answers.setdefault(text_key(example.query), set()).add(families.family_of[document])
    added = 0
    for example, ranking in zip(examples, hits):
        own = answers[text_key(example.query)]
        candidates = []
        seen = {keys[by_id[example.positive_id]], text_key(example.positive_document)}
        related = families.related_to.get(example.positive_id, ())
        for position, _ in ranking:
            chunk = chunks[position]
            if families.family_of[chunk.document_id] in own or chunk.id in related:
                continue
            if keys[position] not in seen:
                seen.add(keys[position])
                candidates.append(texts[position])
        negatives = evenly_spaced(candidates[rank_window(len(chunks))], per_example)
        example.negative_documents = [*example.negative_documents, *negatives]
        added += len(negatives)
    return added
