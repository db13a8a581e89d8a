"""Hard negatives by BM25: passages that share words with a query but do not answer it."""

from collections.abc import Sequence

from utils.documents.families import Families
from utils.documents.normalization import text_key
from utils.records import Chunk, TrainingExample
from utils.search.lexical import BM25Index
from utils.training_data.negatives_mined import SKIPPED_TOP_RANKS, evenly_spaced


def add_bm25_negatives(
    examples: Sequence[TrainingExample],
    chunks: Sequence[Chunk],
    per_example: int,
    families: Families,
    skip_top: int = SKIPPED_TOP_RANKS,
    depth: int = 100,
) -> None:
    """Append up to `per_example` hard negatives to each example whose `positive_id` is a chunk's, in place, taken at
    equal steps from the candidates in BM25's ranks `skip_top` to `depth`.

    The top ranks are skipped because they often answer the query as well as the passage that it was made from.
    Candidates copy neither the positive nor each other, none is related to the positive, and none is from the family of
    a document that holds a positive of the same query.

    Args:
        families: of the documents of `chunks`.
        skip_top: number of top ranks to skip.
        depth: lowest rank to retrieve.
    """
    by_id = {chunk.id: position for position, chunk in enumerate(chunks)}
    examples = [example for example in examples if example.positive_id in by_id]
    if not per_example or not examples:
        return
    texts = [chunk.full_text for chunk in chunks]
    keys = [text_key(chunk.text) for chunk in chunks]
    hits = BM25Index(texts).search([example.query for example in examples], depth)
    answers: dict[str, set[int]] = {}  # query -> families of the documents that answer it
    for example in examples:
        document = chunks[by_id[example.positive_id]].document_id
        answers.setdefault(text_key(example.query), set()).add(families.family_of[document])
    for example, ranking in zip(examples, hits):
        own = answers[text_key(example.query)]
        candidates = []
        seen = {keys[by_id[example.positive_id]], text_key(example.positive_document)}
        related = families.related_to.get(example.positive_id, ())
        for position, _ in ranking[skip_top:]:
            chunk = chunks[position]
            if families.family_of[chunk.document_id] in own or chunk.id in related:
                continue
            if keys[position] not in seen:
                seen.add(keys[position])
                candidates.append(texts[position])
        example.negative_documents = [*example.negative_documents, *evenly_spaced(candidates, per_example)]
