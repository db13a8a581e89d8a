"""Near-duplicates and clusters of related texts."""

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


def test_related_texts_form_one_cluster_also_through_others():
    near_duplicates = NearDuplicateIndex()
    chain = [text(1)]
    for seed in range(3):
        chain.append(replace_words(chain[-1], 0.06, seed))
    assert all(near_duplicates.add(name, part) for name, part in zip("abcd", chain))
    assert len({near_duplicates.cluster(name) for name in "abcd"}) == 1
    assert near_duplicates.add("e", text(2)) and near_duplicates.cluster("e") == "e"


def test_a_duplicate_passage_merges_the_clusters_of_both_documents():
    near_duplicates = NearDuplicateIndex()
    for name, cluster, seed in (("x1", "x", 1), ("x2", "x", 2), ("y1", "y", 3), ("y2", "y", 1)):
        near_duplicates.add(name, text(seed), cluster)
    assert near_duplicates.duplicate_of == {"y2": "x"} and near_duplicates.cluster("x") == near_duplicates.cluster("y")


def test_short_texts_and_texts_without_spaces_are_compared():
    near_duplicates = NearDuplicateIndex()
    assert near_duplicates.add("a", "two words") and not near_duplicates.add("b", "Two words.")
    japanese = "これは日本語の文章です。文字コードを判定します。とても長い文章なので比較できます。"
    assert near_duplicates.add("c", japanese) and not near_duplicates.add("d", japanese + "。")
    assert near_duplicates.add("e", "まったく別の話をここに書いておきます。似ている所はありません。")
