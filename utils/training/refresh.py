"""Hard negatives mined anew between epochs, with the model in training (ANCE, Xiong et al., arXiv 2007.00808)."""

from utils.console import print_line
from utils.search.scorers import FusedScorer, splade_scorer
from utils.splade.encoder import SpladeEncoder
from utils.training.tokenization import TokenizedExamples
from utils.training_data.negatives_mined import mine_negatives, rank_window


class NegativeRefresher:
    """Replaces the negatives of training examples by documents that the model ranks high for their queries.

    Args:
        encoder: the model in training.
        examples: the training examples; changed by each call.
        count: negatives an example.
        teacher: keeps out what it takes for an answer; None for no check.

    Raises:
        ValueError: there is no teacher, and too few documents to mine without one.
    """

    def __init__(
        self, encoder: SpladeEncoder, examples: TokenizedExamples, count: int, teacher: FusedScorer | None = None
    ) -> None:
        self.encoder, self.examples, self.count, self.teacher = encoder, examples, count, teacher
        # Only texts of training examples are mined, and they are numbered before those of the validation.
        self.queries = examples.queries.texts[: examples.query_numbers.max() + 1]
        self.documents = examples.documents.texts[: examples.document_numbers.max() + 1]
        ranks = rank_window(len(self.documents))
        if teacher is None and ranks.start >= ranks.stop:
            raise ValueError(
                f"refresh_negatives: {len(self.documents)} documents are too few to mine without a teacher; name one"
            )

    def __call__(self) -> None:
        """Mine with the model as it is now."""
        self.encoder.eval()
        mined, _ = mine_negatives(
            self.examples.query_numbers.tolist(),
            self.examples.positive_numbers.tolist(),
            [record.origin for record in self.examples.records],
            splade_scorer("model", self.encoder, self.queries, self.documents),
            self.teacher,
            self.count,
        )
        self.examples.set_negatives(mined)
        print_line(f"mined {sum(map(len, mined)):,} negatives for {len(mined):,} examples with the model as it is now")
