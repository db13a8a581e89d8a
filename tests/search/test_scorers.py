"""Scorers: the real MiniLM, SPLADE-tiny and BM25, and a cross-encoder with random weights."""

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer

from utils.export.folders import Optimization, write_optimized
from utils.models import resolve_model
from utils.search.scorers import FusedScorer, open_fused_scorer, open_scorer

QUERIES = ["a red fruit", "how to brake", "sea"]
DOCUMENTS = ["apples and cherries", "the brakes of a truck", "waves of the sea", "the sea, the sea", "nothing at all"]
ALL = np.arange(len(QUERIES)), np.arange(len(DOCUMENTS))


def all_pairs():
    """Return the positions of each query with each document, flat."""
    return np.repeat(ALL[0], len(DOCUMENTS)), np.tile(ALL[1], len(QUERIES))


@pytest.mark.parametrize("name", ["bm25", "minilm", "splade-tiny"])
def test_pairs_blocks_and_search_agree(name):
    scorer = open_scorer(name, QUERIES, DOCUMENTS, "cpu")
    block = scorer.block_scores(*ALL)
    assert block.shape == (3, 5) and block.dtype == np.float32
    np.testing.assert_allclose(scorer.pair_scores(*all_pairs()), block.ravel(), rtol=1e-4, atol=1e-5)
    for row, (best, scores) in zip(block, scorer.search(3), strict=True):
        assert scores.tolist() == pytest.approx(np.sort(row)[::-1][:3].tolist(), abs=1e-5)
        np.testing.assert_allclose(row[best], scores, atol=1e-5)
    if name != "bm25":
        assert block.argmax(1)[1] == 1 and block.argmax(1)[2] in (2, 3)


@pytest.mark.parametrize(
    "optimization", [Optimization(graph="onnx"), Optimization(precision="int8")], ids=["onnx", "int8"]
)
def test_an_optimized_folder_scores_nearly_as_the_model_does(optimization, tmp_path):
    write_optimized("splade-tiny", optimization, tmp_path, {})
    scores = open_scorer(str(tmp_path), QUERIES, DOCUMENTS, "cpu").block_scores(*ALL)
    expected = open_scorer("splade-tiny", QUERIES, DOCUMENTS, "cpu").block_scores(*ALL)
    np.testing.assert_allclose(scores, expected, rtol=0.05, atol=0.3)


def test_a_dense_model_scores_by_cosine():
    model = SentenceTransformer(resolve_model("minilm"), device="cpu")
    expected = model.similarity(model.encode(QUERIES), model.encode(DOCUMENTS)).numpy()
    scores = open_scorer("minilm", QUERIES, DOCUMENTS, "cpu").block_scores(*ALL)
    np.testing.assert_allclose(scores, expected, atol=0.01)  # the scorer runs in bfloat16 where that is fast


def test_a_cross_encoder_reads_query_and_document_together(cross_encoder):
    scorer = open_scorer(str(cross_encoder), QUERIES, DOCUMENTS, "cpu")
    expected = CrossEncoder(str(cross_encoder), device="cpu").predict(
        [(QUERIES[q], DOCUMENTS[d]) for q, d in zip(*all_pairs())], activation_fn=lambda logits: logits
    )
    scores = scorer.pair_scores(*all_pairs())
    np.testing.assert_allclose(scores, expected, atol=0.01)
    assert scores.dtype == np.float32 and np.ptp(expected) > 0


def test_fused_scores_are_the_weighted_sum_of_standardized_scores():
    names = ["bm25", "minilm"]
    fused = open_fused_scorer(["bm25=2", "minilm"], QUERIES, DOCUMENTS, "cpu")
    rng = np.random.default_rng(0)
    sample = rng.integers(3, size=2000), rng.integers(5, size=2000)
    expected = np.zeros((3, 5))
    for name, weight in zip(names, (2, 1)):
        scorer = open_scorer(name, QUERIES, DOCUMENTS, "cpu")
        sampled = scorer.pair_scores(*sample)
        expected += weight * (scorer.block_scores(*ALL) - sampled.mean()) / sampled.std()
    np.testing.assert_allclose(fused.block_scores(*ALL), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fused.pair_scores(*all_pairs()), expected.ravel(), rtol=1e-3, atol=1e-4)
    assert fused.deviation == pytest.approx(expected[sample].std(), rel=1e-3)


def test_a_single_scorer_keeps_its_scores():
    scorer = open_scorer("bm25", QUERIES, DOCUMENTS)
    assert FusedScorer([scorer], [3.0], 3, 5).block_scores(*ALL).tolist() == scorer.block_scores(*ALL).tolist()


@pytest.mark.parametrize("name", ["minilm=none", "minilm=0", "minilm=inf"])
def test_a_weight_is_a_positive_number(name):
    with pytest.raises(ValueError, match="weight"):
        open_fused_scorer([name], QUERIES, DOCUMENTS)
