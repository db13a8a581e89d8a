"""Near-duplicates and related texts."""

import random

from utils.documents.duplicates import NearDuplicateIndex

WORDS = [f"word{i}" for i in range(500)]


def text(seed, words=120):
    """Return a text of random words."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def replace_words(text, share, seed=0):
    """Return the text with a share of its words replaced at random."""
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in text.split())


def test_a_near_duplicate_is_found_whatever_its_case_and_spacing():
    near_duplicates = NearDuplicateIndex()
    assert near_duplicates.add("a", text(1)) and near_duplicates.add("b", text(2))
    assert not near_duplicates.add("c", text(1).upper().replace(" ", "\n"))
    assert not near_duplicates.add("d", replace_words(text(2), 0.01))
    assert near_duplicates.duplicate_of == {"c": "a", "d": "b"}


def test_related_texts_are_paired_with_the_earlier_ones_from_the_given_similarity_on():
    texts = {"a": text(1), "b": replace_words(text(1), 0.06), "c": text(2), "d": text(1)}
    pairs = {}
    for similarity in (0.5, 0.95):
        near_duplicates = NearDuplicateIndex(similarity)
        assert [near_duplicates.add(name, part) for name, part in texts.items()] == [True, True, True, False]
        pairs[similarity] = near_duplicates.related
    assert pairs == {0.5: [("b", "a"), ("d", "a")], 0.95: [("d", "a")]}


def test_the_duplicate_of_one_of_many_similar_texts_is_found():
    near_duplicates = NearDuplicateIndex()
    pages = [replace_words(text(1, words=300), 0.1, seed) for seed in range(200)]
    assert all(near_duplicates.add(f"page {number}", page) for number, page in enumerate(pages))
    assert not near_duplicates.add("copy", replace_words(pages[150], 0.01, 7))
    assert near_duplicates.duplicate_of == {"copy": "page 150"}


def test_short_texts_and_texts_without_spaces_are_compared():
    near_duplicates = NearDuplicateIndex()
    assert near_duplicates.add("a", "two words") and not near_duplicates.add("b", "Two words.")
    japanese = "これは日本語の文章です。文字コードを判定します。とても長い文章なので比較できます。"
    assert near_duplicates.add("c", japanese) and not near_duplicates.add("d", japanese + "。")
    assert near_duplicates.add("e", "まったく別の話をここに書いておきます。似ている所はありません。")
