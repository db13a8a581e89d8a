"""BM25 search."""

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT

from utils.evaluation.collection import Collection
from utils.evaluation.systems import evaluate_bm25
from utils.records import Chunk, Document, TrainingExample
from utils.search.analyzer import split_terms
from utils.search.lexical import BM25Index
from utils.search.scorers import open_scorer
from utils.training.distillation import BatchTeacher
from utils.training_data.quality import filter_by_round_trip

FRUIT = ["red apples", "green apples and green pears", "blue sea", ""]
# Language, a word of the first text in another form, or, where there are no spaces, within it; two texts.
FOUND = {
    "english": ("pump", "Check the pumps", "Close the valve"),
    "de": ("Häuser", "ein Haus am See", "ein Boot am See"),
    "russian": ("фильтрами", "Проверьте фильтры", "Закройте клапан"),
    "fi": ("pumppu", "tarkista pumpun paine", "sulje venttiili"),
    "nb": ("pumpene", "kontroller pumpe og trykk", "lukk ventilen"),
    "chinese": ("过滤器", "每次更换过滤器后必须给泵排气", "关闭阀门"),
    "zh": ("泵", "每次更换过滤器后必须给泵排气", "关闭阀门"),
    "ja": ("ポンプ", "交換するたびにポンプの空気を抜く", "弁を閉じてください"),
    "japanese": ("猫", "庭に黒猫がいる", "庭に犬がいる"),
    "ko": ("펌프", "필터를 바꾸면 펌프에서 공기를 뺍니다", "밸브를 닫으십시오"),
    "thai": ("แมว", "ในบ้านมีแมวสีดำ", "ปิดวาล์ว"),
    "km": ("ខ្យល់", "ត្រូវបញ្ចេញខ្យល់ពីស្នប់", "បិទ"),
    "lo": ("ອາກາດ", "ຕ້ອງໄລ່ອາກາດອອກ", "ປິດ"),
    "my": ("လေ", "ပန့်မှလေကိုထုတ်ရမည်", "ပိတ်ပါ"),
}
GERMAN = ["Die Häuser stehen am See.", "Das Boot liegt am Ufer des Flusses.", "Der Wald ist im Winter still."]


def test_the_best_match_comes_first_and_texts_without_a_shared_word_are_left_out():
    hits = BM25Index(FRUIT, "en").search(["green apples", "zebra", ""], 10)
    assert [position for position, _ in hits[0]] == [1, 0]
    assert hits[1] == hits[2] == []


def test_the_product_of_the_matrices_is_what_search_scores():
    index = BM25Index(FRUIT, "en")
    queries = ["green apples", "apples red apples", "zebra", "", "and the"]
    product = (index.query_matrix(queries) @ index.document_matrix().T).toarray()
    for row, hits in zip(product, index.search(queries, 10)):
        assert {i: pytest.approx(s) for i, s in hits} == {i: s for i, s in enumerate(row.tolist()) if s}


def test_no_queries_find_nothing_and_no_texts_have_no_terms():
    index = BM25Index(FRUIT, "en")
    assert index.search([], 3) == [] and index.mean_terms([]) == 0


def test_mean_terms_counts_distinct_terms():
    index = BM25Index(["red red apples", "sea"], "en")
    assert index.mean_terms(["red apple apples", "sea"]) == 1.5


@pytest.mark.parametrize(("language", "found"), FOUND.items(), ids=FOUND)
def test_texts_are_found_by_other_forms_of_their_words_and_by_words_without_spaces(language, found):
    query, *texts = found
    assert [position for position, _ in BM25Index([*reversed(texts)], language).search([query], 1)[0]] == [1]


def test_terms_are_normalized_words_and_in_scripts_without_spaces_characters_and_pairs():
    assert split_terms("The \uff30\uff35\uff2d\uff30's 2ⁿᵈ co\u00adver") == ["the", "pump", "s", "2nd", "cover"]
    assert split_terms("黒猫 GPT-4対応") == ["黒", "猫", "黒猫", "gpt", "4", "対", "応", "対応"]
    assert split_terms("학교에서") == ["학", "교", "에", "서", "학교", "교에", "에서"]
    assert split_terms("ปั๊ม") == ["ปั๊", "ม", "ปั๊ม"]  # with the marks of each character
    assert split_terms("हिन्दी") == ["हिन्दी"]


@pytest.mark.parametrize("language", ["tr", "azerbaijani"])
def test_turkish_and_azerbaijani_have_two_letters_i(language):
    index = BM25Index(["\u0130stanbul", "I\u0307zmir", "ISI"], language)
    hits = index.search(["istanbul", "izmir", "\u0131s\u0131", "isi"], 2)
    assert [[position for position, _ in found] for found in hits] == [[0], [1], [2], []]


def test_the_language_is_that_of_the_texts_unless_it_is_named():
    assert BM25Index(GERMAN).language == "de"
    assert [position for position, _ in BM25Index(GERMAN).search(["ein Haus"], 3)[0]] == [0]
    assert BM25Index(GERMAN, "english").search(["ein Haus"], 3) == [[]]
    with pytest.raises(ValueError, match="unknown language 'moonish'"):
        BM25Index(GERMAN, "moonish")


@pytest.mark.parametrize(
    ("language", "analyzer"),
    {
        "german": "German: Snowball stemmer, stop words",
        "nn": "Norwegian Nynorsk: Snowball stemmer, stop words",
        "fi": "Finnish: Snowball stemmer, no stop words",
        "ukrainian": "Ukrainian: no stemmer, no stop words",
        "ja": "Japanese: characters and pairs of them, no stop words",
        None: "unknown language: no stemmer, no stop words",
    }.items(),
)
def test_the_description_says_what_is_done(language, analyzer):
    assert BM25Index(["", "1"], language).description == f"BM25: k1 1.5, b 0.75; {analyzer}"


@pytest.mark.parametrize("texts", [[""], ["", "the"]])
def test_texts_without_a_term_are_not_found(texts):
    index = BM25Index(texts, "en")
    assert index.search(["the", "", "sea"], 3) == [[], [], []]
    assert (index.query_matrix(["the sea"]) @ index.document_matrix().T).sum() == 0


def test_several_threads_search_at_once():
    words = ["pumping", "valves", "filters", "pressures", "changing", "cleaned"]
    queries = [" ".join(pair) + f" unknown{i}" for i, pair in enumerate(itertools.permutations(words, 2))] * 20
    texts = ["pump the valve", "filter by pressure", "change what is cleaning"]
    alone = BM25Index(texts, "en").search(queries, 3)
    index = BM25Index(texts, "en")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: index.search([query], 3)[0], queries)) == alone


def test_the_baseline_the_teacher_and_the_filter_have_the_same_index():
    texts = [*GERMAN, "ein Schiff", "ein Baum"]
    expected = BM25Index(texts, "de").search(["das Haus am Fluss"], 5)[0]
    assert len(expected) == 2  # by two stems
    scorer = open_scorer("bm25", ["das Haus am Fluss"], texts, language="german")
    assert {i: pytest.approx(s) for i, s in expected} == dict(enumerate(scorer.block_scores([0], range(5))[0][:2]))
    teacher = BatchTeacher(["bm25"], None, ["das Haus am Fluss"], texts, language="german")
    assert [score > 0 for score in teacher([0], range(5))[0]] == [True, True, False, False, False]
    data = Collection([Document(id=str(i), text=text) for i, text in enumerate(texts)], {"q": "Haus"}, {"q": {"0": 1}})
    assert [evaluate_bm25(data, ["P@1"], name).means["P@1"] for name in ("german", "english")] == [1, 0]
    passages = [Chunk(id=str(i), document_id=str(i), text=text) for i, text in enumerate(texts)]
    # By stems the first passage is ahead of the positive; without them, nothing is.
    example = TrainingExample(query="Haus", positive_document=texts[4], positive_id="4")
    assert filter_by_round_trip([example], passages, 1, "bm25", language="german")[0] == []
    assert filter_by_round_trip([example], passages, 1, "bm25", language="english")[0] == [example]


SEARCH_BESIDE_JAX = """
import sys
from utils.search.lexical import BM25Index
assert "jax.lax" in sys.modules
print(BM25Index(["red apples", "blue sea"], "en").search(["apple"], 2)[0][0][0])
"""


def test_jax_takes_no_memory_of_a_gpu_and_does_not_search(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").touch()
    (tmp_path / "jax" / "lax.py").write_text(
        "import os\nassert os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false'\n"
        "def top_k(scores, k):\n    assert not any(scores), 'this is a search'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop("XLA_PYTHON_CLIENT_PREALLOCATE", None)
    command = [sys.executable, "-c", SEARCH_BESIDE_JAX]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "0\n"
