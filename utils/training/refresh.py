"""Hard negatives mined anew between epochs, with the model in training (ANCE, Xiong et al., arXiv 2007.00808)."""

from collections.abc import Sequence

from utils.search.scorers import FusedScorer, splade_scorer
from utils.splade.encoder import SpladeEncoder
from utils.training.batches import TokenizedExample
from utils.training_data.negatives_mined import mine_negatives


class NegativeRefresher:
    """Replaces the negatives of training examples by documents that the model ranks high for their queries.

    Args:
        encoder: the model in training.
        examples: the training examples, with `index_texts` done; changed by each call.
        queries, documents: the texts that their indices count.
        count: negatives an example.
        teacher: keeps out what it takes for an answer; None for no check.
    """

    def __init__(
        self,
        encoder: SpladeEncoder,
        examples: Sequence[TokenizedExample],
        queries: Sequence[str],
        documents: Sequence[str],
        count: int,
        teacher: FusedScorer | None = None,
    ) -> None:
        self.encoder, self.examples, self.count, self.teacher = encoder, examples, count, teacher
        # Only documents of training examples are mined, and they are indexed before those of the validation.
        self.token_ids = {n: ids for e in examples for n, ids in zip(e.document_indices, e.documents)}
        self.keys = {n: key for e in examples for n, key in zip(e.document_indices, e.keys)}
        self.queries, self.documents = queries, documents[: len(self.token_ids)]

    def __call__(self) -> None:
        """Mine with the model as it is now."""
        self.encoder.eval()
        mined, _ = mine_negatives(
            [example.query_index for example in self.examples],
            [example.document_indices[0] for example in self.examples],
            [example.origin for example in self.examples],
            splade_scorer("model", self.encoder, self.queries, self.documents),
            self.teacher,
            self.count,
        )
        for example, negatives in zip(self.examples, mined):
            example.document_indices[1:] = negatives
            example.texts[1:] = [self.documents[number] for number in negatives]
            example.documents[1:] = [self.token_ids[number] for number in negatives]
            example.keys[1:] = [self.keys[number] for number in negatives]
            example.scores = None
