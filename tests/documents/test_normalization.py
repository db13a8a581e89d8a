"""Normalization of texts, and of a tokenizer's input."""

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer

from utils.documents.normalization import normalize, normalizing_tokenizer
from utils.models import load_masked_lm

UNNORMALIZED, PLAIN = "the \ufb01nal m\u00b2 of \uff37ater", "the final m2 of water"


@pytest.fixture
def cased():
    """Return SPLADE-tiny's tokenizer, made case-sensitive."""
    tokenizer = load_masked_lm("splade-tiny")[1]
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    return tokenizer


def test_text_is_normalized():
    assert (
        normalize(f"{UNNORMALIZED}\u00ad\u200b at\u00a05\u2009°C  \n\n\n\nnext\x0c")
        == "the final m2 of Water at 5 °C\n\nnext"
    )


def test_a_tokenizer_normalizes_wherever_it_is_opened(cased, tmp_path):
    normalizing_tokenizer(cased, "nfkc-lowercase").save_pretrained(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert opened(UNNORMALIZED)["input_ids"] == opened(PLAIN)["input_ids"] == opened(PLAIN.upper())["input_ids"]
    assert (opened.mask_token, opened.model_max_length) == (cased.mask_token, cased.model_max_length)
    assert normalizing_tokenizer(opened, "nfkc-lowercase") is opened


def test_nfkc_alone_keeps_the_case(cased):
    tokenizer = normalizing_tokenizer(cased, "nfkc")
    assert tokenizer(UNNORMALIZED)["input_ids"] == tokenizer(PLAIN.replace("water", "Water"))["input_ids"]
    assert tokenizer("Water")["input_ids"] != tokenizer("water")["input_ids"]
    assert normalizing_tokenizer(tokenizer, "none") is tokenizer
