"""Scoring and mining through the script."""

import json

import pytest
from conftest import fails_with_one_line, run
from sentence_transformers import CrossEncoder

import score_training_data
from utils.records import read_examples
from utils.search.scorers import open_fused_scorer, open_scorer
from utils.training_data.negatives_mined import evenly_spaced, explain_no_negatives, mine_negatives, rank_window

SCRIPT = "score_training_data.py"
PAGES = {
    "engine": "The engine of the truck burns diesel fuel and needs oil.",
    "motor": "A diesel engine: the truck's motor burns fuel, oil keeps it going.",
    "brake": "The brakes of the truck work with compressed air.",
    "sea": "The sea is deep and blue, and waves roll over it.",
    "apple": "Apples are red and sweet, and grow on trees.",
}
QUESTIONS = {
    "engine": "what fuel does the truck's engine burn",
    "brake": "how do the truck's brakes work",
    "sea": "how deep is the blue sea",
    "apple": "where do red apples grow",
}


@pytest.fixture
def data(tmp_path):
    rows = [
        {"query": question, "positive_document": PAGES[name], "source": name, "mine": 7, "query_type": "question"}
        for name, question in QUESTIONS.items()
    ]
    rows[0]["negative_documents"] = [{"document": PAGES["sea"], "explanation": "about water"}, PAGES["apple"]]
    rows.append({"query": QUESTIONS["sea"], "positive_document": "Waves are high.", "source": "sea"})
    (tmp_path / "training_data.json").write_text(json.dumps(rows))
    (tmp_path / "docs.json").write_text(json.dumps(list(PAGES.values())))
    return tmp_path


def scored(data, *options):
    file = data / "out.jsonl"
    done = run(SCRIPT, "--train-file", data / "training_data.json", "--output-file", file, "--device", "cpu", *options)
    assert done.returncode == 0, done.stderr
    return read_examples(file), done.stdout


def test_scores_stand_in_the_order_of_the_documents_and_all_fields_stay(data):
    examples, said = scored(data, "--teacher", "minilm")
    first = examples[0]
    documents = [first.positive_document, *first.negatives]
    teacher = open_scorer("minilm", [first.query], documents, "cpu")
    assert first.scores == pytest.approx(teacher.block_scores([0], [0, 1, 2])[0].tolist(), abs=0.01)
    assert first.scores[0] > max(first.scores[1:]) and [len(e.scores) for e in examples] == [3, 1, 1, 1, 1]
    assert first.negative_documents[0].explanation == "about water" and first.model_extra == {"mine": 7}
    assert "minilm scores positives" in said and "in 100.0%" in said


@pytest.mark.parametrize("miner", ["bm25", "minilm", "splade-tiny"])
def test_mined_negatives_are_near_and_no_answers(data, miner):
    options = ["--mine", miner, "--negatives", 2, "--docs-file", data / "docs.json", "--teacher", "minilm"]
    examples, said = scored(data, *options, "--margin", 0.2)
    for example in examples:
        assert len(example.negatives) <= 2 and len(example.scores) == 1 + len(example.negatives)
        assert example.positive_document not in example.negatives
    assert sum(len(example.negatives) for example in examples) >= 3
    by_query = {example.query: example for example in examples}
    # the motor's page answers what is asked about the engine: the teacher sees it
    assert PAGES["motor"] not in by_query[QUESTIONS["engine"]].negatives
    for example in examples:
        if example.source == "sea":  # another positive of the same query, of the same document
            assert not {PAGES["sea"], "Waves are high."} & set(example.negatives)
    assert f"negatives with {miner}" in said and "left out as likely answers" in said


def test_without_a_teacher_the_first_ranks_are_left_out():
    queries, documents = ["word"], [f"word {'word ' * (40 - i)} {i}" for i in range(40)] + ["else"]
    miner = open_scorer("bm25", queries, documents)
    ranking = next(iter(miner.search(40)))[0].tolist()
    (mined,), dropped = mine_negatives([0], [ranking[0]], [set()], miner, None, 2)
    # Of 41 documents a twentieth, 3, is skipped beside the positive, and a sixth, 6, is the last.
    assert mined == [ranking[4], ranking[5]] and dropped == 0
    (mined,), _ = mine_negatives([0], [ranking[0]], [set()], miner, None, 40, depth=20)
    assert mined == ranking[4:20]  # as deep as it is told, below the sixth


@pytest.mark.parametrize(
    ("size", "depth", "has_teacher", "rejected", "reason"),
    [
        (50, None, True, 7, "the teacher takes all 7 candidates for likely answers; lower `margin`"),
        (50, None, True, 0, "all that it finds are positives of the query, or of the same passage or document; add"),
        (50, 1, True, 0, "the same passage or document; look below rank 1 by a higher `depth`, or add documents by"),
        (50, 50, True, 0, "the same passage or document; add documents by"),
        (50, None, False, 0, "document, and without a `teacher` the first 3 others are left out"),
        (11, None, False, 0, "the first 1 others are left out as likely answers, and 11 documents are too few"),
        (900, 30, False, 0, "the first 30 others are left out as likely answers, and `depth=30` ends there"),
    ],
)
def test_that_nothing_is_mined_has_a_reason(size, depth, has_teacher, rejected, reason):
    assert reason in explain_no_negatives(size, depth, has_teacher, rejected)


@pytest.mark.parametrize(
    ("size", "first", "last"), [(11, 2, 1), (12, 2, 2), (100, 6, 16), (600, 31, 100), (10**6, 31, 100)]
)
def test_the_ranks_that_negatives_come_from_fit_the_size_of_the_collection(size, first, last):
    window = rank_window(size)
    assert (window.start + 1, window.stop) == (first, last)


def test_some_of_a_list_are_spread_over_all_of_it():
    assert evenly_spaced(range(10), 6) == [0, 1, 3, 5, 6, 8] and evenly_spaced(range(9), 3) == [0, 3, 6]
    assert evenly_spaced("ab", 5) == ["a", "b"] and evenly_spaced("", 5) == []


def test_what_the_teacher_puts_near_the_positive_is_no_negative():
    queries, documents = ["apples"], ["apples", "apples", "apples and pears", "pears and apples on a table", "sea"]
    miner = open_scorer("bm25", queries, documents)
    teacher = open_fused_scorer(["bm25"], queries, documents)
    (mined,), dropped = mine_negatives([0], [0], [set()], miner, teacher, 4, margin=0.1)
    assert mined == [2, 3] and dropped == 1  # not the copy, nor the sea, which has no word of the query


def test_a_cross_encoder_scores_and_does_not_search(data, cross_encoder):
    examples, _ = scored(data, "--teacher", cross_encoder, "bm25=0.5", "--mine", "bm25", "--negatives", 1)
    assert all(example.scores for example in examples)
    options = ["--train-file", data / "training_data.json", "--output-file", data / "o.json", "--mine", cross_encoder]
    fails_with_one_line(run(SCRIPT, *options), "a cross-encoder cannot search")


def test_an_interrupted_scoring_goes_on_and_scores_nothing_twice(data, cross_encoder, monkeypatch):
    options = ["--teacher", cross_encoder, "--mine", "bm25", "--negatives", 2, "--docs-file", data / "docs.json"]
    whole, _ = scored(data, *options)
    (data / "out.jsonl").unlink()
    predict, asked = CrossEncoder.predict, []

    def interrupted(model, pairs, **more):
        if len(asked) == 8:
            raise KeyboardInterrupt
        asked.extend(pairs)
        return predict(model, pairs, **more)

    monkeypatch.setattr("utils.search.scorers.JOURNAL_PAIRS", 4)
    monkeypatch.setattr(CrossEncoder, "predict", interrupted)
    line = [
        "--train-file",
        data / "training_data.json",
        "--output-file",
        data / "out.jsonl",
        "--device",
        "cpu",
        *options,
    ]
    assert run(SCRIPT, *line).returncode == 130
    journal = data / "out.jsonl.journal"
    assert len(journal.read_text().splitlines()) == 1 + 8 and not (data / "out.jsonl").exists()
    fails_with_one_line(run(SCRIPT, *line), "go on with it by --resume")

    monkeypatch.setattr(CrossEncoder, "predict", lambda *a, **o: (asked.extend(a[1]), predict(*a, **o))[1])
    resumed, _ = scored(data, *options, "--resume")
    assert len(set(asked)) == len(asked) and not journal.exists()
    for one, other in zip(whole, resumed, strict=True):
        assert one.negatives == other.negatives and one.scores == pytest.approx(other.scores, abs=0.01)


def test_mining_alone_leaves_no_scores(data):
    (data / "docs.json").write_text(json.dumps([f"The truck of the year {year}." for year in range(1900, 1940)]))
    options = ["--mine", "bm25", "--negatives", 1, "--docs-file", data / "docs.json", "--language", "en"]
    examples, said = scored(data, *options)
    assert "BM25: k1 1.5, b 0.75; English: Snowball stemmer, stop words\n" in said
    assert sum(len(example.negatives) for example in examples) >= 2
    assert all("scores" not in json.loads(line) for line in (data / "out.jsonl").read_text().splitlines())


def test_resuming_what_was_not_begun_is_said(data):
    _, said = scored(data, "--teacher", "bm25", "--resume")
    assert "out.jsonl.journal: nothing to resume; scoring from the beginning" in said


def test_a_run_after_one_that_failed_in_the_same_process_has_the_journal(data, monkeypatch):
    line = [SCRIPT, "--train-file", str(data / "none.json"), "--output-file", str(data / "o.json"), "--teacher", "bm25"]
    monkeypatch.setattr("sys.argv", line)
    args = score_training_data.parse_args()
    with pytest.raises(FileNotFoundError) as kept:  # a notebook keeps the traceback, and with it what is open
        score_training_data.main(args)
    with pytest.raises(FileNotFoundError):
        score_training_data.main(args)
    assert kept.tb and not (data / "o.json.journal").exists()


BAD = {
    "nothing asked for": ([], "name a --teacher"),
    "missing file": (["--train-file", "{tmp}/none.json", "--teacher", "bm25"], "No such file"),
    "missing model": (["--teacher", "{tmp}/none"], "no such model folder"),
    "weight": (["--teacher", "bm25=much"], "must be a number above 0"),
    "weight of one teacher": (["--teacher", "bm25=0.5"], "'bm25=0.5': the weight of a single teacher has no effect"),
    "negatives without mining": (["--teacher", "bm25", "--negatives", "4"], "--negatives has no effect without --mine"),
    "depth without mining": (["--teacher", "bm25", "--depth", "9"], "--depth has no effect without --mine"),
    "documents without mining": (["--teacher", "bm25", "--docs-file", "x"], "--docs-file has no effect without --mine"),
    "unknown language": (["--teacher", "bm25", "--language", "moonish"], "unknown language 'moonish'"),
    "a language for no BM25": (["--teacher", "minilm", "--language", "de"], "without bm25 as --mine or --teacher"),
    "margin without mining": (["--teacher", "bm25", "--margin", "0.5"], "--margin has no effect without --mine"),
    "margin without a teacher": (["--mine", "bm25", "--margin", "1"], "--margin has no effect without --teacher"),
    "too few documents": (
        ["--mine", "bm25"],
        "--mine bm25: no negatives among 5 documents: without a --teacher the first 1 others are left out as likely "
        "answers, and 5 documents are too few; name a teacher",
    ),
    "likely answers alone": (
        ["--mine", "bm25", "--teacher", "bm25", "--margin", "99"],
        "candidates for likely answers; lower --margin",
    ),
    "output is a folder": (["--teacher", "bm25", "--output-file", "{tmp}"], "is a folder"),
    "output over the documents": (
        ["--mine", "bm25", "--docs-file", "{tmp}/docs.json", "--output-file", "{tmp}/docs.json"],
        "docs.json: it is read, too, and would be overwritten; name another output file",
    ),
    "output over the examples": (
        ["--teacher", "bm25", "--output-file", "{tmp}/training_data.json"],
        "training_data.json: it is read, too, and would be overwritten; name another output file",
    ),
    "resuming without a teacher": (["--mine", "bm25", "--resume"], "--resume has no effect without --teacher"),
    "an unknown device that nothing needs": (["--teacher", "bm25", "--device", "moon"], "unknown device 'moon'"),
    "no margin": (["--mine", "bm25", "--teacher", "bm25", "--margin", "nan"], "must be from -100 to 100, not nan"),
    "only empty examples": (["--teacher", "bm25", "--train-file", "{tmp}/hollow.json"], "every example has an empty"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(data, arguments, message):
    (data / "hollow.json").write_text('[{"query": "", "positive_document": "p"}]')
    options = ["--train-file", data / "training_data.json", "--output-file", data / "out.json"]
    fails_with_one_line(run(SCRIPT, *options, *(part.format(tmp=data) for part in arguments)), message)
    assert not (data / "out.json").exists()
