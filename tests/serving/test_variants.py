"""Two models in use: sessions, and the outcome of feedback with its interval."""

import json

import pytest
from scipy.stats import binomtest

from utils.serving.variants import Outcome, assign_variant, session_id, share_interval

MODELS = {"A": ("one", "1"), "B": ("two", "2")}


def judgment(variant, session, query, liked, **further):
    line = {"query": query, "document_id": "d", "liked": liked, "variant": variant, "session": session}
    return line | dict(zip(("model", "model_fingerprint"), MODELS[variant])) | further


def test_the_share_of_sessions_is_the_one_asked_for():
    sessions = [f"{number:032x}" for number in range(4000)]
    assert sum(assign_variant(session, 0.3) == "B" for session in sessions) == pytest.approx(1200, abs=100)
    assert {assign_variant(session, 0.0) for session in sessions} == {"A"}
    assert {assign_variant(session, 1.0) for session in sessions} == {"B"}
    assert session_id(sessions[0]) not in sessions[0] and len(set(map(session_id, sessions))) == 4000


def test_judgments_of_as_many_sessions_have_wilsons_interval():
    counts = [(1, 1)] * 30 + [(0, 1)] * 20
    expected = binomtest(30, 50).proportion_ci(method="wilson")
    assert share_interval(counts) == pytest.approx((expected.low, expected.high), abs=0.005)


def test_many_judgments_of_one_session_count_for_little():
    alike, apart = [(10, 10)] * 3 + [(0, 10)] * 2, [(6, 10)] * 5
    assert share_interval(alike)[0] < 0.25 < share_interval(apart)[0] < 0.6
    assert share_interval([(50, 50)])[0] < 0.3 and share_interval([]) == (0, 1)


def test_the_last_judgment_of_a_session_counts_and_those_of_other_models_do_not(tmp_path):
    lines = [judgment("A", "s", "q", True), judgment("A", "s", "q", False), judgment("B", "t", "q", True)]
    lines += [
        judgment("B", "t", "r", True, model="three"),
        judgment("B", "t", "r", True, model_fingerprint="3"),
        judgment("B", "u", ["r"], True),
        judgment("B", "u", "r", "false"),
        {"query": "q", "document": "d", "liked": True},
        ["x"],
    ]
    file = tmp_path / "feedback.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    outcome = Outcome(MODELS)
    outcome.read(file)
    first, second = outcome.summary()["variants"]
    assert (first["likes"], first["dislikes"], second["likes"], second["sessions"]) == (0, 1, 1, 1)
    difference = outcome.summary()["difference"]
    assert difference["share"] == 1 and -1 < difference["low"] < 0 and difference["high"] == 1


def test_what_nobody_has_judged_has_no_share():
    summary = Outcome(MODELS).summary()
    assert summary["difference"] is None and [row["share"] for row in summary["variants"]] == [None, None]
