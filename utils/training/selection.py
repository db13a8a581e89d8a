"""Which weights a training leaves behind: the best epoch's, their average with the untuned ones, or the untuned ones.

Tuning on made queries can move a model away from what it knew of people's. So the untuned model is epoch 0, which what
was tuned must not be behind on the validation queries. The average gives up part of what was learned and keeps more of
what was known (WiSE-FT, Wortsman et al., arXiv 2109.01903).
"""

from typing import Any

import numpy as np
import torch

from utils.evaluation.collection import Collection
from utils.evaluation.runs import ModelRun, Run, bm25_run, run_model, values_by_query
from utils.evaluation.significance import Difference, paired_difference
from utils.search.lexical import BM25Index
from utils.splade.encoder import SpladeEncoder
from utils.training.settings import VALIDATION_METRIC

TUNED_SHARE = 0.5  # of the tuned weights in the average
CHANCE = 0.05  # p of a difference from which on it may be chance, over the number of what is compared
TOP = 10  # first documents of a query, for how far the model moved
NAMES = {
    "tuned": "the best epoch",
    "average": "the average of the best epoch and the untuned model",
    "untuned": "the untuned model",
}

Weights = dict[str, torch.Tensor]


def copy_weights(encoder: SpladeEncoder) -> Weights:
    """Return a copy of the model's weights, in the processor's memory."""
    return {name: weights.detach().cpu().clone() for name, weights in encoder.state_dict().items()}


def keep_best(
    encoder: SpladeEncoder,
    untuned: Weights | None,
    data: Collection,
    free: bool,
    language: str | None = None,
    tuned_run: ModelRun | None = None,
) -> dict[str, Any]:
    """Give the encoder the weights that are best on the validation queries, of equal ones those that were tuned most.

    Args:
        encoder: with the weights of the best epoch.
        untuned: the weights that the training began with; None where these search nothing, as those of a plain masked
            language model.
        data: the validation queries and what they search.
        free: whether other weights than the best epoch's may be kept.
        language: of the texts, for BM25.
        tuned_run: of the best epoch's weights, where it is known.

    Returns:
        kept (tuned, average or untuned), queries, documents, nDCG@10 of each (by name, BM25 too), query_terms and
        doc_terms of what is kept, over_untuned and over_bm25 (the Difference of what was tuned, by name), and
        same_top_10, the share of the untuned model's first ten documents that are still among the first ten.
    """
    weights = {"tuned": copy_weights(encoder)}
    if untuned is not None and free:
        weights["average"] = {
            name: torch.lerp(untuned[name], tuned, TUNED_SHARE) if tuned.is_floating_point() else tuned
            for name, tuned in weights["tuned"].items()
        }
    if untuned is not None:
        weights["untuned"] = untuned
    runs = {"tuned": tuned_run or run_model(data, encoder, VALIDATION_METRIC)}
    for name in list(weights)[1:]:
        encoder.load_state_dict(weights[name])
        runs[name] = run_model(data, encoder, VALIDATION_METRIC)
    index = BM25Index([document.full_text for document in data.documents], language)
    values = {name: runs[name].values for name in weights}
    bm25 = values_by_query(data, bm25_run(data, index), VALIDATION_METRIC)
    best = max((name for name in values if name != "untuned"), key=lambda name: values[name].mean())
    selection: dict[str, Any] = {"kept": best, "queries": len(data.queries), "documents": len(data.documents)}
    selection[VALIDATION_METRIC] = {name: float(row.mean()) for name, row in [*values.items(), ("BM25", bm25)]}
    if "untuned" in values:
        if free and values["untuned"].mean() > values[best].mean():
            selection["kept"] = "untuned"
        selection["over_untuned"] = paired_difference(values[best], values["untuned"])._asdict()
        selection["same_top_10"] = _same_top(runs[best].hits, runs["untuned"].hits)
    selection["over_bm25"] = paired_difference(values[best], bm25)._asdict()
    kept = runs[selection["kept"]]
    selection |= {"query_terms": kept.query_terms, "doc_terms": kept.doc_terms}
    encoder.load_state_dict(weights[selection["kept"]])
    return selection


def describe_selection(selection: dict[str, Any]) -> str:
    """Return in a line what was kept, and what tuning gained."""
    figure = selection[VALIDATION_METRIC][selection["kept"]]
    kept = f"kept {NAMES[selection['kept']]}: {VALIDATION_METRIC} {figure:.3f} on {selection['queries']:,} queries"
    if "over_untuned" not in selection:
        return f"{kept}; over BM25 {Difference(**selection['over_bm25'])}"
    untuned, bm25 = (Difference(**selection[name]) for name in ("over_untuned", "over_bm25"))
    if selection["kept"] == "untuned":
        return f"{kept}; tuning gained nothing: {untuned}"
    tuned = len({"tuned", "average"} & selection[VALIDATION_METRIC].keys())  # the best of these is told of
    chance = untuned.low <= 0 <= untuned.high or untuned.p > CHANCE / tuned
    doubt = ", which may be chance" if chance else ""
    return f"{kept}; over the untuned model {untuned}{doubt}, over BM25 {bm25}"


def _same_top(run: Run, other: Run) -> float:
    """Return the mean share of the first TOP documents of `other` that are among the first TOP of `run`."""
    shares = []
    for query, hits in other.items():
        first, second = (set(sorted(found, key=found.get, reverse=True)[:TOP]) for found in (hits, run[query]))
        shares.append(len(first & second) / max(1, len(first)))
    return float(np.mean(shares))
