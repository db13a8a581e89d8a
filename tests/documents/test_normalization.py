"""One spelling for the same text."""

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer

from utils.documents.normalization import normalize, normalizing_tokenizer
from utils.models import load_masked_lm

ODD, PLAIN = "the \ufb01nal m\u00b2 of \uff37ater", "the final m2 of water"


@pytest.fixture
def cased():
    """SPLADE-tiny's tokenizer without its lower case."""
    tokenizer = load_masked_lm("splade-tiny")[1]
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    return tokenizer


def test_text_is_normalized():
    assert (
        normalize(f"{ODD}\u00ad\u200b at\u00a05\u2009°C  \n\n\n\nnext\x0c") == "the final m2 of Water at 5 °C\n\nnext"
    )


def test_a_tokenizer_normalizes_wherever_it_is_opened(cased, tmp_path):
    normalizing_tokenizer(cased, "nfkc-lowercase").save_pretrained(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert opened(ODD)["input_ids"] == opened(PLAIN)["input_ids"] == opened(PLAIN.upper())["input_ids"]
    assert (opened.mask_token, opened.model_max_length) == (cased.mask_token, cased.model_max_length)
    assert normalizing_tokenizer(opened, "nfkc-lowercase") is opened


def test_the_case_is_kept_unless_asked_otherwise(cased):
    tokenizer = normalizing_tokenizer(cased, "nfkc")
    assert tokenizer(ODD)["input_ids"] == tokenizer(PLAIN.replace("water", "Water"))["input_ids"]
    assert tokenizer("Water")["input_ids"] != tokenizer("water")["input_ids"]
    assert normalizing_tokenizer(tokenizer, "none") is tokenizer
