"""Tests of SpladeEncoder on several model architectures, and of its model folders."""

import json
import string

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from utils.splade import packing, streaming
from utils.splade.encoder import SpladeEncoder

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
FAMILIES = {
    "Bert": SMALL,
    "Roberta": SMALL | {"pad_token_id": 1},
    "XLMRoberta": SMALL | {"pad_token_id": 1},
    "ModernBert": SMALL
    | {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3, "reference_compile": False},
    "DistilBert": {
        "dim": 32,
        "hidden_dim": 32,
        "n_layers": 2,
        "n_heads": 2,
        "vocab_size": 64,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    },
}
TEXTS = ["a b c d e f g", "h", "i j k", "", "z y x w v u t s r q p"]


def letter_tokenizer(pad_id: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the lowercase letters as its words; `pad_id` is 0 or 1."""
    special = ["[PAD]", "[UNK]"] if pad_id == 0 else ["[UNK]", "[PAD]"]
    words = [*special, "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **names)


def family_model(family: str):
    """Return a small model of the architecture `family` with random weights, and its tokenizer."""
    torch.manual_seed(0)
    options = FAMILIES[family]
    config = getattr(transformers, f"{family}Config")(**options)
    model = getattr(transformers, f"{family}ForMaskedLM")(config).eval()
    with torch.no_grad():  # weights large enough for some logits to be positive
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model, letter_tokenizer(options["pad_token_id"])


def plain_formula(folder, texts) -> torch.Tensor:
    """Return [texts, vocabulary] weights computed with transformers alone."""
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    batch = AutoTokenizer.from_pretrained(folder)(list(texts), padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=mask).logits
    return (torch.log1p(torch.relu(logits)) * mask[:, :, None]).amax(1)


def dense(vectors, vocabulary: int) -> torch.Tensor:
    """Return sparse vectors as a dense [vectors, vocabulary] tensor."""
    out = torch.zeros(len(vectors), vocabulary)
    for row, vector in zip(out, vectors):
        row[torch.from_numpy(vector.indices).long()] = torch.from_numpy(vector.values)
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_folder_gives_the_same_vectors_through_transformers_and_the_plain_formula(family, tmp_path):
    model, tokenizer = family_model(family)
    SpladeEncoder(model, tokenizer, precision="float32").save_pretrained(tmp_path / "model")
    encoder = SpladeEncoder.from_pretrained(tmp_path / "model", "cpu", precision="float32")
    texts = [text for text in TEXTS if text]
    vectors = dense(encoder.encode(texts), 64)
    assert (vectors > 0).sum() > 20
    torch.testing.assert_close(vectors, plain_formula(tmp_path / "model", texts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_all_parameters_are_those_of_the_plain_formula(family):
    torch.set_default_dtype(torch.float64)
    try:
        model, tokenizer = family_model(family)
        encoder = SpladeEncoder(model.double(), tokenizer)
        batch = encoder.pad(encoder.tokenize(["a b c d e", "f", "g h"]))
        upstream = torch.randn(3, 64)
        (encoder(**batch) * upstream).sum().backward()
        fused = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        del model.get_output_embeddings().forward  # restores the model's own projection
        logits = model(**batch).logits.masked_fill(~batch["attention_mask"].bool()[:, :, None], -1e9)
        (torch.log1p(torch.relu(logits)).max(1).values * upstream).sum().backward()
        assert fused
        for name, parameter in model.named_parameters():
            if name in fused:
                torch.testing.assert_close(fused[name], parameter.grad)
    finally:
        torch.set_default_dtype(torch.float32)


def test_splade_tiny_equals_the_plain_formula(tiny):
    texts = ["how does a jet engine work", "boundary layer", "x " * 700]
    batch = tiny.pad(tiny.tokenize(texts))
    from utils.models import resolve_model

    model = AutoModelForMaskedLM.from_pretrained(resolve_model("splade-tiny")).eval()
    with torch.no_grad():
        expected = torch.log1p(torch.relu(model(**batch).logits)) * batch["attention_mask"][:, :, None]
    torch.testing.assert_close(dense(tiny.encode(texts), 30522), expected.amax(1), rtol=1e-4, atol=1e-4)


def test_attention_is_not_planned_anew_for_each_shape():
    """As cuDNN does on CUDA, for a second at a time."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    SpladeEncoder.from_pretrained("splade-tiny")
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_results_come_in_input_order_whatever_the_batches(tiny):
    texts = ["word " * n for n in (90, 1, 30, 0, 7, 200, 2)]
    alone = [tiny.encode([text])[0] for text in texts]
    for vector, expected in zip(tiny.encode(texts, batch_size=3), alone):
        assert vector.indices.tolist() == expected.indices.tolist()
        np.testing.assert_allclose(vector.values, expected.values, rtol=1e-4, atol=1e-5)


def test_padding_and_groups_do_not_change_a_vector(tiny):
    tokens = tiny.tokenize(["short", "a much longer text about engines " * 20, "middle sized text " * 15])
    groups, rows = tiny.group_by_length(tokens)
    assert len(groups["input_ids"]) == 3
    with torch.no_grad():
        grouped = tiny(**groups)[rows]
        padded = tiny(**tiny.pad(tokens))
    torch.testing.assert_close(grouped, padded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_text_has_an_empty_vector(tiny, text):
    vector = tiny.encode([text])[0]
    assert len(vector.indices) == len(vector.values) == 0


def test_sizes_below_one_are_refused(tiny):
    with pytest.raises(ValueError, match="`batch_size` must be a whole number of at least 1, not 0"):
        tiny.encode(["engine"], batch_size=0)
    with pytest.raises(ValueError, match="`max_length` must be a whole number of at least 1, not -1"):
        SpladeEncoder.from_pretrained("splade-tiny", "cpu", max_length=-1)


def test_an_empty_list_gives_an_empty_list(tiny):
    assert tiny.encode([]) == []


def test_longer_texts_are_truncated_to_the_limit(tiny):
    long = tiny.encode(["engine " * 600])[0]
    assert long.indices.tolist() == tiny.encode(["engine " * 510])[0].indices.tolist()
    assert len(tiny.tokenize(["engine " * 600], 16)[0]) == 16


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_are_cut_as_the_tokenizer_cuts_them(side, tiny, monkeypatch):
    monkeypatch.setattr(tiny.tokenizer, "truncation_side", side)
    texts = ["how do wings make lift", "drag"]
    for limit in (3, 5, 30):
        assert tiny.tokenize(texts, limit) == tiny.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
        bare = tiny.tokenizer(texts, truncation=True, max_length=limit, add_special_tokens=False)["input_ids"]
        assert tiny.truncated_ids(texts, limit, add_special_tokens=False)[0] == bare


def test_a_limit_without_room_for_a_text_is_refused(tiny, monkeypatch):
    for limit in (0, 2):
        with pytest.raises(ValueError, match=f"`max_length` must be at least 3, not {limit}"):
            tiny.encode(["drag"], limit)
    with pytest.raises(ValueError, match="`max_length` must be at least 3, not 1"):
        SpladeEncoder.from_pretrained("splade-tiny", "cpu", max_length=1)
    with pytest.raises(ValueError, match="`query_max_length` must be at least 3, not 2"):
        SpladeEncoder(*family_model("Bert"), query_max_length=2)
    monkeypatch.setattr(tiny, "query_max_length", 2)
    with pytest.raises(ValueError, match="`query_max_length` must be at least 3, not 2"):
        tiny.encode_query("drag")


def test_queries_that_do_not_pass_the_network_need_no_room_for_special_tokens():
    weights = torch.ones(64)
    encoder = SpladeEncoder(*family_model("Bert"), max_length=3, query_max_length=1, query_weights=weights)
    assert len(encoder.encode_query("a b").indices) == 1


def test_roberta_positions_start_after_the_padding_id():
    model, tokenizer = family_model("Roberta")
    encoder = SpladeEncoder(model, tokenizer)
    assert encoder.max_length == 38
    assert len(encoder.encode(["a b c d " * 20])) == 1


def test_config_file_holds_limits_and_base_model(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "splade_config.json").read_text())
    assert config["pooling"] == "max" and config["activation"] == "log1p_relu"
    assert config["max_length"] == 512 and config["base_model"] == "splade-tiny"
    assert not list(tmp_path.parent.glob(".*-*"))


def test_a_failed_save_leaves_the_old_folder_readable(tiny, tmp_path, monkeypatch):
    tiny.save_pretrained(tmp_path / "model")
    before = {file: file.read_bytes() for file in (tmp_path / "model").rglob("*.*")}

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny.tokenizer, "save_pretrained", full_disk)
    with pytest.raises(OSError):
        tiny.save_pretrained(tmp_path / "model")
    assert {file: file.read_bytes() for file in (tmp_path / "model").rglob("*.*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_texts_give_the_vectors_of_padded_ones(family, monkeypatch):
    monkeypatch.setattr(packing, "ROW_MULTIPLE", 16)  # so that filler tokens are added
    model, tokenizer = family_model(family)
    encoder = SpladeEncoder(model, tokenizer)
    assert encoder._can_pack == (family != "ModernBert")  # ModernBert attends over a sliding window
    batch = encoder.pad([tokens for tokens in encoder.tokenize(TEXTS) if tokens])
    packed = encoder(**batch)
    encoder._can_pack = False
    torch.testing.assert_close(packed, encoder(**batch), rtol=1e-4, atol=1e-5)


def test_packing_is_found_in_a_model_with_dropout_in_training():
    model, _ = family_model("Bert")
    model.train()
    model.bert.embeddings.eval()  # as a frozen part may be
    assert model.bert.encoder.layer[0].output.dropout.p > 0
    before, state = [module.training for module in model.modules()], torch.get_rng_state()
    assert packing.enable_packing(model) and packing.packs(model, 1e-3)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)


def test_padding_stands_where_the_tokenizer_wants_it():
    encoder = SpladeEncoder(*family_model("Bert"))
    expected = {"right": [[5, 6, 0], [7, 8, 9]], "left": [[0, 5, 6], [7, 8, 9]]}
    for side, ids in expected.items():
        encoder.tokenizer.padding_side = side
        batch = encoder.pad([[5, 6], [7, 8, 9]])
        assert batch["input_ids"].tolist() == ids
        assert batch["attention_mask"].tolist() == [[int(id != 0) for id in row] for row in ids]


def test_padded_ids_are_int64_where_numpy_counts_in_int32(tiny, monkeypatch):
    full = np.full
    monkeypatch.setattr(np, "full", lambda shape, value, dtype=np.int32: full(shape, value, dtype))  # as on Windows
    assert tiny.pad([[5, 6], [7]])["input_ids"].dtype == torch.int64


def test_a_stream_is_encoded_a_window_at_a_time(tiny, monkeypatch):
    monkeypatch.setattr(streaming, "SORT_WINDOW", 4)
    taken = []

    def stream():
        for number in range(40):
            taken.append(number)
            yield f"engine number {number} " * (number % 3)

    vectors = tiny.encode_stream(stream())
    first = next(vectors)
    assert len(first.indices) == 0 and len(taken) <= 12  # the current window and the one being tokenized
    rest = [first, *vectors]
    for vector, expected in zip(rest, tiny.encode(list(stream())[:40])):
        assert vector.indices.tolist() == expected.indices.tolist()
    assert len(rest) == 40


def test_a_batch_that_does_not_fit_the_memory_is_halved(tiny, monkeypatch):
    monkeypatch.setattr(tiny._batch_encoder, "token_budget", dict(tiny._batch_encoder.token_budget))  # is lowered
    texts = [f"engine {number}" for number in range(10)]
    expected = tiny.encode(texts)
    sizes, hidden_states = [], packing.hidden_states

    def limited(model, ids, lengths):
        if len(lengths) > 3:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 8.52 GB)")
        sizes.append(len(lengths))
        return hidden_states(model, ids, lengths)

    monkeypatch.setattr(packing, "hidden_states", limited)
    for vector, other in zip(tiny.encode(texts, batch_size=10), expected):
        assert vector.indices.tolist() == other.indices.tolist()
    assert sum(sizes) == 10 and max(sizes) <= 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_query_has_the_vector_of_the_same_text_and_follows_the_weights(family):
    model, tokenizer = family_model(family)
    encoder = SpladeEncoder(model, tokenizer, precision="float32")
    for _ in range(2):
        for text in TEXTS:
            query, same = encoder.encode_query(text), encoder.encode([text], encoder.query_max_length)[0]
            assert query.indices.tolist() == same.indices.tolist()
            np.testing.assert_allclose(query.values, same.values, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            model.base_model.get_input_embeddings().weight.mul_(1.5)


def test_a_model_that_cannot_be_traced_runs_eagerly(monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("cannot be traced")

    model, tokenizer = family_model("Bert")
    expected = SpladeEncoder(model, tokenizer, precision="float32").encode(["a b c"])[0]
    monkeypatch.setattr(torch.jit, "trace", refuse)
    query = SpladeEncoder(*family_model("Bert"), precision="float32").encode_query("a b c")
    np.testing.assert_allclose(query.values, expected.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["log1p_relu", "log1p_log1p_relu"])
@pytest.mark.parametrize("query_encoder", ["model", "idf"])
def test_weights_of_some_terms_are_those_columns_and_their_gradients(activation, query_encoder):
    model, tokenizer = family_model("Bert")
    encoder = SpladeEncoder(model, tokenizer, query_weights=torch.rand(64) if query_encoder == "idf" else None)
    encoder.activation = activation
    batch = encoder.pad(encoder.tokenize(["a b c d e", "f", "g h"]))
    if query_encoder == "idf":
        batch["query_ids"] = torch.tensor([[5, 6], [7, 0]])
    terms = torch.arange(3, 64, 5)
    results = []
    for columns, options in ((terms, {}), (slice(None), {"terms": terms})):
        encoder.zero_grad()
        weights = encoder(**batch, **options)[:, columns]
        weights.square().sum().backward()
        results.append((weights, *(part.grad for part in encoder.parameters() if part.grad is not None)))
    assert (results[0][0] > 0).sum() > 5
    for full, partial in zip(*results, strict=True):
        torch.testing.assert_close(partial, full)


def test_settings_that_others_leave_in_the_tokenizer_do_not_count(tiny):
    text = "how do the wings of a plane make lift"
    ids, batch = tiny.tokenize([text]), tiny.tokenize(["short", text])
    assert len(ids[0]) > 5 and len(batch[0]) < len(batch[1])
    backend = tiny.tokenizer.backend_tokenizer
    backend.enable_truncation(5)
    assert tiny.tokenize([text]) == ids
    backend.enable_padding(length=64)
    assert tiny.tokenize(["short", text]) == batch
