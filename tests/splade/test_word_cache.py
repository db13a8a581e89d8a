"""Tests of the words whose token ids are kept: they must never change what a text's tokens are."""

import copy
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_encoder import family_model
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from transformers import AutoTokenizer

from utils.models import resolve_model
from utils.records import replace_surrogates
from utils.splade import word_cache
from utils.splade.encoder import SpladeEncoder
from utils.splade.word_cache import WordCache

WORDS = ["jet", "Engines", "burn", "fuel.", "(a)", "e-mail", "Zürich", "[SEP]", "##ing", "x" * 101, "x" * 40]
WORDS += ["漢字", "ﬁn", "½", "가", "ᄀ", "ᅡ", "👍🏽", "\xb4", "\ud800", "\u0301", "\u0308e"]
WORDS += ["", "\0", "\x1c", "\x85", "\xa0", "\u3000", "\u200b"]
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\x0b", "\x0c", "\u2028", ""]


@pytest.fixture
def tokenizer():
    """Return a copy of SPLADE-tiny's."""
    own = AutoTokenizer.from_pretrained(resolve_model("splade-tiny"))
    own.backend_tokenizer.no_padding()
    own.backend_tokenizer.no_truncation()
    return own


def texts(count: int, seed: int) -> list[str]:
    chosen = random.Random(seed)
    return [
        "".join(chosen.choice(WORDS) + chosen.choice(SPACES) for _ in range(chosen.randrange(12))) for _ in range(count)
    ]


def expected(tokenizer, some: list[str], add_special_tokens: bool = True) -> list[list[int]]:
    whole = list(map(replace_surrogates, some))
    return [tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"] for text in whole]


@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_ids_are_those_of_the_tokenizer_the_first_time_and_again(add_special_tokens, tokenizer):
    cache, some = WordCache(tokenizer.backend_tokenizer), list(map(replace_surrogates, texts(1000, 1)))
    assert cache.splits_at_spaces
    for _ in range(2):
        assert cache.tokenize(some, add_special_tokens) == expected(tokenizer, some, add_special_tokens)


def test_the_encoder_gives_the_tokenizers_ids_and_asks_it_for_a_word_once(tiny, monkeypatch):
    tiny.forget_words()
    asked = []
    own = WordCache._tokenize_words
    monkeypatch.setattr(WordCache, "_tokenize_words", lambda self, words: own(self, asked.extend(words) or words))
    for seed in (1, 2, 1):
        some = texts(50, seed)
        assert tiny.truncated_ids(some, 10_000)[0] == expected(tiny.tokenizer, some)
    short = [word for word in asked if len(word) <= word_cache.LONGEST_KEPT]
    assert len(short) == len(set(short)) > 20
    tiny.forget_words()
    tiny.tokenize(["fuel."] * 8)
    tiny.tokenize(["fuel. burn"] * 7)  # which the tokenizer itself has done by then
    assert asked.count("fuel.") == 2 and asked.count("burn") == 1


@pytest.mark.parametrize("setting", ["WORDS_KEPT", "LONGEST_KEPT"])
def test_what_is_not_kept_is_tokenized_all_the_same(setting, tokenizer, monkeypatch):
    monkeypatch.setattr(word_cache, setting, 5)
    cache = WordCache(tokenizer.backend_tokenizer)
    for seed in range(40):
        some = [text.translate({9: " ", 10: " ", 13: " "}) for text in map(replace_surrogates, texts(3, seed))]
        assert cache.tokenize(some, True) == expected(tokenizer, some)
        if setting == "WORDS_KEPT":
            assert len(cache._known) <= len(" ".join(some).split(" ")) + 5
        else:
            assert all(len(word) <= 5 for word in cache._known)


def test_threads_that_drop_each_others_words_get_the_right_ids(tokenizer, monkeypatch):
    monkeypatch.setattr(word_cache, "WORDS_KEPT", 12)
    cache = WordCache(tokenizer.backend_tokenizer)
    parts = [list(map(replace_surrogates, texts(3, seed))) for seed in range(100)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda part: cache.tokenize(part, True), parts * 5))
    assert results == [expected(tokenizer, part) for part in parts] * 5


@pytest.mark.parametrize("token", ["ngin", "jet engines", "jet\xa0engines", "en", AddedToken("engin", lstrip=True)])
def test_tokens_that_are_added_later_count(token, tiny, tokenizer, monkeypatch):
    monkeypatch.setattr(tiny, "tokenizer", tokenizer)
    some = ["the jet engines burn fuel", "jet\nengines"] * 4
    before = tiny.tokenize(some)
    tokenizer.add_tokens([token])
    assert tiny.tokenize(some) == expected(tokenizer, some) != before


def test_a_normalizer_that_is_exchanged_later_counts(tiny, tokenizer, monkeypatch):
    monkeypatch.setattr(tiny, "tokenizer", tokenizer)
    some = ["Zürich"] * 8
    before = tiny.tokenize(some)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    assert tiny.tokenize(some) == expected(tokenizer, some) != before


def test_no_more_words_are_kept_of_one_call_either(tokenizer, monkeypatch):
    monkeypatch.setattr(word_cache, "WORDS_KEPT", 12)
    cache = WordCache(tokenizer.backend_tokenizer)
    some = [" ".join(f"w{i}" for i in range(100))]
    assert cache.tokenize(some, True) == expected(tokenizer, some)
    assert len(cache._known) <= 12


def test_words_are_not_kept_for_tokenizers_that_look_beyond_them(tokenizer):
    backend = tokenizer.backend_tokenizer
    for changed, value in [
        ("normalizer", normalizers.Replace(" the ", " ")),
        ("normalizer", normalizers.Sequence([normalizers.NFC(), normalizers.Prepend("_")])),
        ("pre_tokenizer", pre_tokenizers.Metaspace()),
        ("pre_tokenizer", pre_tokenizers.ByteLevel()),
    ]:
        other = copy.deepcopy(backend)
        setattr(other, changed, value)
        assert not WordCache(other).splits_at_spaces
    bare = Tokenizer(WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    assert not WordCache(bare).splits_at_spaces  # nothing splits its texts
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert WordCache(bare).splits_at_spaces
    assert WordCache(bare).tokenize(["a b", ""], True) == [[1, 0], []]


@pytest.mark.parametrize("family", ["Roberta", "ModernBert"])
def test_encoders_of_other_tokenizers_are_as_they_were(family):
    encoder = SpladeEncoder(*family_model(family))
    some = ["a b  c", "d\ne"] * 4
    assert encoder.truncated_ids(some, 30)[0] == expected(encoder.tokenizer, some)
