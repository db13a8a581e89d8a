"""Tests of encoding on CUDA: packed texts, streams and graphs. Most need a GPU."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_encoder import FAMILIES, TEXTS, dense, family_model

from utils.splade.cuda_graphs import BatchGraphs
from utils.splade.encoder import SpladeEncoder
from utils.splade.opening import open_encoder

NO_GPU = "NOT RUN: no GPU, and graphs, streams and FlashAttention are on CUDA alone"
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
QUERIES = ["how do jet engines burn fuel", "boundary layer", "wing " * 40, "a", "heat transfer in a laminar flow"]
DOCUMENTS = [f"engine number {number} " + "flows over a wing " * (number % 37) for number in range(3000)]


def difference(vectors, expected) -> float:
    """Return the norm of the difference of vectors, as a share of the expected ones' norm."""
    expected = dense(expected, 30_522)
    return float((dense(vectors, 30_522) - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def exact():
    return SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="float32")


def eager() -> SpladeEncoder:
    encoder = open_encoder("splade-tiny", "cuda")
    encoder._graphs._works = False
    return encoder


@pytest.mark.parametrize(
    ("texts", "tokens", "shape"),
    [
        (1, 5, (1, 16)),
        (1, 16, (1, 16)),
        (1, 17, (1, 32)),
        (3, 40, (4, 64)),
        (64, 16, (64, 16)),
        (65, 16, None),
        (1, 1025, None),
    ],
)
def test_a_graph_is_for_powers_of_two(texts, tokens, shape):
    assert BatchGraphs(None, 0, 2000).shape([[7]] * (texts - 1) + [[7] * tokens]) == shape


def test_a_graph_has_no_more_tokens_than_the_model_has_positions():
    graphs = SpladeEncoder(*family_model("Roberta"))._graphs  # 40 positions, of which texts take 38
    assert graphs.shape([[7] * 35]) == (1, 38) and graphs.shape([[7] * 9]) == (1, 16)


@pytest.mark.filterwarnings("ignore:User provided device_type")
def test_streams_share_no_rounded_weights(monkeypatch):
    encoder, enabled = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="bfloat16"), []

    def pad(self, tokens):
        enabled.append(torch.is_autocast_cache_enabled())
        raise RuntimeError("as far as a test without a GPU gets")

    monkeypatch.setattr(SpladeEncoder, "device", torch.device("cuda"))
    monkeypatch.setattr(encoder, "_layer_precision", "float32")  # off the CPU there are none in C++
    monkeypatch.setattr(SpladeEncoder, "_graphs_run", lambda self: False)
    monkeypatch.setattr(SpladeEncoder, "_packs", lambda self: False)
    monkeypatch.setattr(SpladeEncoder, "pad", pad)
    with pytest.raises(RuntimeError, match="as far as"):
        encoder._encode_batch([[5, 6]])
    assert enabled == [False]


def test_freezing_forgets_graphs_of_all_terms():
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cpu")
    graphs = encoder._graphs
    encoder.freeze()
    assert encoder._graphs is not graphs


@on_gpu
def test_a_long_text_runs_as_a_graph_of_a_model_with_few_positions():
    encoder = SpladeEncoder(*family_model("Bert"), precision="float32").to("cuda")  # 40 positions
    encoder.encode_query("a b c d " * 9)
    assert set(encoder._graphs._graphs) == {(1, 40)}


@on_gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_in_float32_are_those_of_the_cpu(family):
    model, tokenizer = family_model(family)
    encoder = SpladeEncoder(model, tokenizer, precision="float32")
    expected = dense(encoder.encode(TEXTS), 64)
    encoder.to("cuda")
    torch.testing.assert_close(dense(encoder.encode(TEXTS), 64), expected, rtol=1e-3, atol=1e-3)
    queries = [encoder.encode_query(text) for text in TEXTS]
    torch.testing.assert_close(dense(queries, 64), expected, rtol=1e-3, atol=1e-3)


@on_gpu
@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float16"])
def test_packed_texts_and_graphs_are_as_close_as_the_precision(exact, precision):
    encoder = open_encoder("splade-tiny", "cuda", precision=precision)
    rounding = 0.003 if precision == "float16" else 0.03
    queries = [encoder.encode_query(text) for text in QUERIES]
    assert set(encoder._graphs._graphs) == {(1, 16), (1, 64)}
    assert difference(queries, [exact.encode_query(text) for text in QUERIES]) < rounding
    assert difference(encoder.encode_queries(QUERIES), queries) < rounding
    assert difference(encoder.encode(DOCUMENTS), exact.encode(DOCUMENTS)) < rounding
    assert encoder._packs_on_cuda


@on_gpu
def test_graphs_follow_the_weights_of_an_encoder_that_is_not_frozen(exact):
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cuda")
    encoder.encode_query("a wing")
    with torch.no_grad():
        for parameter in encoder.model.bert.encoder.parameters():
            parameter.mul_(0.9)
    without = SpladeEncoder.from_pretrained("splade-tiny", "cuda")
    without._graphs._works = False
    without.load_state_dict(encoder.state_dict())
    changed = encoder.encode_query("a wing")
    assert difference([changed], [without.encode_query("a wing")]) < 0.01
    assert difference([changed], [exact.encode_query("a wing")]) > 0.05


@on_gpu
def test_several_threads_get_their_own_vectors():
    encoder, other = open_encoder("splade-tiny", "cuda"), eager()
    expected = [other.encode_query(text) for text in QUERIES]
    documents = other.encode(DOCUMENTS[:500])
    with ThreadPoolExecutor(8) as pool:
        running = pool.submit(encoder.encode, DOCUMENTS[:500])
        queries = list(pool.map(encoder.encode_query, QUERIES * 40))
    assert all(difference([vector], [expected[i % len(QUERIES)]]) < 0.01 for i, vector in enumerate(queries))
    assert difference(running.result(), documents) < 0.01


@on_gpu
def test_batches_of_several_streams_come_in_order():
    encoder = open_encoder("splade-tiny", "cuda")
    alone = [encoder.encode([text])[0] for text in DOCUMENTS[:50]]
    together = encoder.encode(DOCUMENTS[:50], batch_size=3)
    assert all(difference([vector], [other]) < 0.01 for vector, other in zip(together, alone))


@on_gpu
def test_a_model_that_waits_for_the_device_runs_without_graphs(exact):
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cuda")

    def wait(*arguments):
        torch.zeros(1, device="cuda").item()

    encoder.model.bert.register_forward_pre_hook(wait)
    with pytest.warns(UserWarning, match="without CUDA graphs"):
        first = encoder.encode_query(QUERIES[0])
    expected = [exact.encode_query(QUERIES[0])]
    assert difference([first], expected) < 0.03 and difference([encoder.encode_query(QUERIES[0])], expected) < 0.03


@on_gpu
def test_gradients_of_packed_texts_are_those_of_padded_ones():
    gradients = []
    for packs in (None, False):  # None: the encoder finds out
        encoder = SpladeEncoder.from_pretrained("splade-tiny", "cuda")
        encoder._packs_on_cuda = packs
        groups, rows = encoder.group_by_length(encoder.tokenize(DOCUMENTS[:64]))
        groups = {name: [part.cuda() for part in parts] for name, parts in groups.items()}
        with torch.autocast("cuda", torch.bfloat16):
            weights = encoder(**groups)[rows.cuda()]
        weights.square().sum().backward()
        assert encoder._packs_on_cuda is (packs is None)
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    packed, padded = gradients
    assert packed.keys() == padded.keys() and len(packed) > 30
    for name in packed:
        if not name.endswith("key.bias"):  # which the softmax takes out: what is there is rounding
            assert (packed[name] - padded[name]).norm() < 0.05 * padded[name].norm(), name


@on_gpu
def test_an_encoder_that_is_moved_captures_anew(exact):
    encoder = open_encoder("splade-tiny", "cuda")
    encoder.encode_query(QUERIES[0])
    encoder.to("cpu")
    held = [torch.randn(2_000_000, device="cuda") for _ in range(8)]  # where its weights were
    encoder.to("cuda")
    assert difference([encoder.encode_query(QUERIES[0])], [exact.encode_query(QUERIES[0])]) < 0.03 and held


@on_gpu
def test_the_memory_of_short_texts_is_bounded():
    encoder = open_encoder("splade-tiny", "cuda")
    encoder.encode(["a wing"] * 100)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    encoder.encode(["a wing"] * 20_000)
    assert torch.cuda.max_memory_allocated() - before < 1e9
