"""Normalization of texts, and of a tokenizer's input."""

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer

from utils.documents.normalization import count_words, normalize, normalizing_tokenizer, split_words, text_key
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


def test_lines_end_alike_and_no_half_of_a_pair_is_left():
    assert normalize("```\r\na\r\n```\r\r\r\rb\ud83d \U0001f600") == "```\na\n```\n\nb\ufffd \U0001f600"


@pytest.mark.parametrize(
    ("text", "words", "count"),
    [
        ("The user_name, 3.5 Liters!", ["the", "user_name", "3", "5", "liters"], 4),
        ("发动机用Diesel油。", ["发动", "动机", "机用", "diesel", "油"], 5),
        ("カレー・ライス", ["カレ", "レー", "ライ", "イス"], 5),
        ("ราคาแพง", ["ราคา", "าคาแ", "คาแพ", "าแพง"], 2),
        ("हिन्दी में", ["हिन्दी", "में"], 2),
        ("엔진은 경유를", ["엔진은", "경유를"], 2),
        ("!?", [], 1),
    ],
)
def test_words_of_scripts_with_and_without_spaces(text, words, count):
    assert split_words(text) == words and count_words(text) == count


def test_keys_ignore_case_and_spacing():
    assert text_key("The  Oil\n") == text_key("the oil") != text_key("theoil")
    assert text_key("每周检查\n机油 Oil") == text_key("每周检查机油 oil")


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
