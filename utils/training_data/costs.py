"""What a language model's work costs, in tokens and money: an estimate before a run, and the count after it."""

from collections import Counter
from collections.abc import Sequence

from utils.console import print_line
from utils.records import Chunk
from utils.training_data.augmentation import REPHRASING_TOKENS
from utils.training_data.bootstrap import estimate_document_tokens
from utils.training_data.language_model import LanguageModel, Request
from utils.training_data.model_queries import estimate_tokens


def estimate_cost(
    passages: Sequence[Chunk],
    requests: Sequence[Request],
    queries: int,
    negatives: int,
    documents: int,
    reformulations: int,
    price: Sequence[float] | None,
) -> str:
    """Return about how many tokens a run takes, and what they cost.

    Args:
        requests, queries, negatives: for the passages, see utils.training_data.model_queries.build_requests.
        documents: to be written about a domain.
        reformulations: of queries, to be written.
        price: of a million tokens read and of a million written.
    """
    costs = [(reformulations * REPHRASING_TOKENS[0], reformulations * REPHRASING_TOKENS[1])]
    if documents:
        costs.append(estimate_document_tokens(documents))
    if requests:
        costs.append(estimate_tokens(requests, queries, negatives, passages))
    return _format_tokens(*map(sum, zip(*costs)), price)


def print_usage(model: LanguageModel, price: Sequence[float] | None) -> None:
    """Print what the language model was asked in this run, and how it answered."""
    failed = Counter(reason for entry in model.entries for reason in entry["failed"])
    read, written = (sum(entry[name] for entry in model.entries) for name in ("read", "written"))
    asked = len(model.entries) + model.unanswered
    print_line(f"asked       {asked:,} questions of {model.model}: {_format_tokens(read, written, price)}")
    unusable = ", ".join(f"{count:,} {reason}" for reason, count in failed.most_common()) or "none"
    unanswered = sum(not entry["answer"] for entry in model.entries)
    print_line(f"unusable    {unusable}; {unanswered:,} questions without an answer")
    if model.unanswered:
        print_line(f"unanswered  {model.unanswered:,} requests; --resume asks them again")


def _format_tokens(read: int, written: int, price: Sequence[float] | None) -> str:
    """Return numbers of tokens and, with a `price` for a million of each, what they cost."""
    cost = f": {(read * price[0] + written * price[1]) / 1e6:,.2f}" if price else ""
    return f"{read:,} tokens to read, {written:,} to write{cost}"
