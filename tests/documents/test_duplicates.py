"""Copies and related texts."""

import random

from utils.documents.duplicates import Likeness

WORDS = [f"word{i}" for i in range(500)]


def text(seed, words=120):
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def changed(text, share, seed=0):
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in text.split())


def test_a_copy_is_found_whatever_its_case_and_spacing():
    likeness = Likeness()
    assert likeness.add("a", text(1)) and likeness.add("b", text(2))
    assert not likeness.add("c", text(1).upper().replace(" ", "\n"))
    assert not likeness.add("d", changed(text(2), 0.01))
    assert likeness.copies == {"c": "a", "d": "b"}


def test_related_texts_are_one_family_by_others_between_too():
    likeness = Likeness()
    chain = [text(1)]
    for seed in range(3):
        chain.append(changed(chain[-1], 0.06, seed))
    assert all(likeness.add(name, part) for name, part in zip("abcd", chain))
    assert len({likeness.family(name) for name in "abcd"}) == 1
    assert likeness.add("e", text(2)) and likeness.family("e") == "e"


def test_parts_of_one_text_are_of_its_family():
    likeness = Likeness()
    for name, family, seed in (("x1", "x", 1), ("x2", "x", 2), ("y1", "y", 3), ("y2", "y", 1)):
        likeness.add(name, text(seed), family)
    assert likeness.copies == {"y2": "x"} and likeness.family("x") == likeness.family("y")


def test_short_texts_and_texts_without_spaces_are_compared_too():
    likeness = Likeness()
    assert likeness.add("a", "two words") and not likeness.add("b", "Two words.")
    japanese = "これは日本語の文章です。文字コードを判定します。とても長い文章なので比較できます。"
    assert likeness.add("c", japanese) and not likeness.add("d", japanese + "。")
    assert likeness.add("e", "まったく別の話をここに書いておきます。似ている所はありません。")
