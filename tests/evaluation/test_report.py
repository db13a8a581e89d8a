"""The report of an evaluation: one page that loads nothing, and its plots as PNG."""

import itertools
import re

import numpy as np
import pytest
from lxml import html

from utils.evaluation import significance
from utils.evaluation.collection import Collection
from utils.evaluation.errors import ErrorAnalysis, JudgedDocument, QueryError
from utils.evaluation.report import ERRORS_SHOWN, QUERIES_SHOWN, write_report
from utils.evaluation.results import gather_results
from utils.evaluation.systems import Costs, Evaluation
from utils.records import Document

HOSTILE = '<script>alert(1)</script> "quoted" & $x$'
PNG = b"\x89PNG\r\n\x1a\n"


def collection(queries: int) -> Collection:
    documents = [Document(id=f"d{i}", text=f"text of document {i}") for i in range(queries)]
    texts = {f"q{i}": f"query number {i}" for i in range(queries)}
    return Collection(documents, texts, {f"q{i}": {f"d{i}": 1} for i in range(queries)})


def evaluation(name: str, data: Collection, values, timed: bool = True) -> Evaluation:
    values = np.asarray(values, float)
    run = {query: {name: 2.0, "d0": 1.0} for query, grades in data.qrels.items() for name in grades}
    times = np.linspace(0.5, 2, len(values))
    costs = Costs(120.5, 20.25, 3.5, 4_200_000, 99.0, times, times / 2) if timed else Costs()
    return Evaluation(name, {"AP": float(values.mean()), "RR": 0.5}, {"AP": values, "RR": values}, run, costs)


def results(data: Collection, *systems: Evaluation, name: str = "the collection"):
    grouping = {query: "even" if int(query[1:]) % 2 == 0 else "odd" for query in data.qrels}
    return gather_results(name, data, systems, "AP", {"parity": grouping})


def written(tmp_path, everything, errors=None) -> html.HtmlElement:
    write_report(tmp_path / "report.html", everything, errors)
    return html.fromstring((tmp_path / "report.html").read_text(encoding="utf-8"))


def text(element: html.HtmlElement) -> str:
    return " ".join(element.text_content().split())


def rows(page: html.HtmlElement, caption: str) -> list[list[str]]:
    (table,) = [table for table in page.iter("table") if table.find("caption").text == caption]
    return [[cell.text_content() for cell in row] for row in table.iter("tr")]


@pytest.fixture(scope="module")
def data():
    return collection(40)


@pytest.fixture(scope="module")
def two(data):
    values = np.linspace(0.2, 0.9, 40)
    values_of_b = values + np.where(np.arange(40) % 2, -0.1, 0.12) * np.linspace(0.5, 1, 40)
    return results(data, evaluation("a", data, values), evaluation("b", data, values_of_b))


def test_the_tables_have_the_figures_of_the_results(two, tmp_path):
    page = written(tmp_path, [two])
    a, b = two.evaluations
    quality = rows(page, "Quality, active terms, size")
    assert quality[0] == ["system", "AP", "RR", "terms a document", "terms a query", "FLOPS", "index"]
    means = {system.system: f"{system.means['AP']:.4f}" for system in (a, b)}
    assert quality[1:] == [[s, mean, "0.5000", "120.5", "20.2", "3.5", "4.2 MB"] for s, mean in means.items()]
    latency = rows(page, "Latency of a query in ms, throughput")
    assert dict(zip(*latency[::2]))["both p50"] == f"{1.5 * np.median(b.costs.encode_ms):.2f}"
    pair = two.comparisons[0]
    compared = dict(zip(*rows(page, "Differences in AP")))
    assert compared["difference (95 % interval)"] == str(pair.difference) and compared["verdict"] == pair.verdict
    assert (compared["won"], compared["lost"], compared["p (Holm)"]) == ("20", "20", f"{pair.adjusted_p:.3f}")
    odd = rows(page, "Mean AP by parity")[2]
    assert odd[:2] == ["odd", "20"] and odd[-1] == str(two.groups["parity"][1].difference)
    assert "40 documents, 40 queries" in text(page)


def test_systems_of_one_name_are_numbered_in_the_pairs_that_are_compared(data, tmp_path):
    systems = [evaluation(name, data, np.linspace(0.1, 0.2 + place, 40)) for place, name in enumerate("aaba")]
    grouping = {"parity": dict.fromkeys(data.qrels, "all")}
    page = written(tmp_path, [gather_results("the collection", data, systems, "AP", grouping, first=2)])
    pairs = [row[:2] for row in rows(page, "Differences in AP")[1:]]
    assert pairs == [["b", "a"], ["b", "a (2)"], ["a (3)", "a"], ["a (3)", "a (2)"], ["a (3)", "b"]]
    better = text(page.find_class("findings")[0].find_class("card")[0])
    assert [better.count(f"a (3) is better than {name}: ") for name in ("a", "a (2)", "b", "a (3)")] == [1, 1, 1, 0]


def test_the_summary_answers_the_four_questions(two, tmp_path):
    page = written(tmp_path, [two])
    better, worse, cost, following = [card.text_content() for card in page.find_class("findings")[0].find_class("card")]
    assert str(two.comparisons[0]) in better
    assert f"b is below a by parity, odd: {two.groups['parity'][1].difference}, 20 queries." in worse
    assert "parity, even" not in worse
    assert "b: 120 terms a document and 20 a query; 1.88 ms a query at the median" in cost
    assert f"about {two.comparisons[0].needed:,} in all" in following


def test_the_page_asks_for_nothing_and_runs_nothing(two, tmp_path):
    page = written(tmp_path, [two])
    links = [link for _, attribute, link, _ in page.iterlinks() if not link.startswith(("#", "data:"))]
    assert links == []
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|@import|url\((?!['\"]?#)", source)
    assert "default-src 'none'" in page.xpath("//meta[@http-equiv]/@content")[0]


def test_each_plot_is_in_the_page_with_a_text_and_beside_it_as_png(two, tmp_path):
    page = written(tmp_path, [two])
    images = page.xpath("//figure/*[@role='img']")
    assert len(images) == 4 and all(image.get("aria-label") and image.find("svg") is not None for image in images)
    assert images[2].get("aria-label").endswith("20 queries above 0, 0 at 0, 20 below.")
    files = {path.name: path.read_bytes() for path in (tmp_path / "report_plots").iterdir()}
    assert files.keys() == {"differences.png", "groups_1.png", "quality.png", "latency.png"}
    assert all(content.startswith(PNG) for content in files.values())
    ids = [element.get("id") for element in page.iter() if element.get("id") and element.tag in ("section", "g")]
    assert len(ids) == len(set(ids)) and {link[1:] for *_, link, _ in page.iterlinks() if "#" in link} <= {
        element.get("id") for element in page.iter()
    }


def test_a_second_report_takes_the_plots_of_the_first_away(two, data, tmp_path):
    written(tmp_path, [two])
    (tmp_path / "report_plots" / "own.png").write_bytes(b"")
    written(tmp_path, [results(data, evaluation("a", data, np.ones(40), timed=False))])
    assert [path.name for path in (tmp_path / "report_plots").iterdir()] == ["own.png"]


def test_headings_are_in_order(two, tmp_path):
    error = QueryError("q", "text", 0.0, 1.0, "cause", "why", None, None, [])
    page = written(tmp_path, [two, two], ErrorAnalysis([error], {"cause": 1}, [("word", 1.5)]))
    levels = [int(element.tag[1]) for element in page.iter("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def test_the_queries_that_tell_most_are_listed_with_their_first_hits(two, tmp_path):
    page = written(tmp_path, [two])
    lost, won = [heading.getnext() for heading in page.get_element_by_id("queries").iter("h3")]
    assert text(lost).startswith("-0.100 query number 39 q39: 0.900 to 0.800")
    assert text(lost).count("text of document 39 d39: relevant, 1 text of document 0 d0: not judged") == 2
    assert text(won).startswith("+0.118 query number 38")


def test_hostile_texts_come_out_as_text(tmp_path):
    document = Document(id=HOSTILE, text=HOSTILE, title="")
    long = "a very long query " * 600
    data = Collection([document], {HOSTILE: HOSTILE, "long": long}, {HOSTILE: {HOSTILE: 1}, "long": {HOSTILE: 1}})
    systems = [
        Evaluation(HOSTILE, {"AP": v}, {"AP": np.array([v, 1 - v])}, {HOSTILE: {HOSTILE: 1.0}, "long": {}}, Costs(9, 9))
        for v in (0.2, 0.9)
    ]
    shown = JudgedDocument(HOSTILE, HOSTILE, HOSTILE, None, 1.0, [_term(HOSTILE), _term("script")])
    error = QueryError(HOSTILE, HOSTILE, 0.0, 1.0, HOSTILE, HOSTILE, shown, None, [(HOSTILE, 1.0)])
    analysis = ErrorAnalysis([error], {HOSTILE: 1}, [(HOSTILE, 1.0)])
    both = gather_results(HOSTILE, data, systems, "AP", {HOSTILE: {HOSTILE: HOSTILE, "long": "b" * 9000}})
    page = written(tmp_path, [both, both], analysis)
    assert not list(page.iter("script")) and (tmp_path / "report.html").stat().st_size < 150_000
    assert text(page).count("<script>alert(1)</script>") > 10 and long[:200] in text(page)
    assert long[:400] not in text(page) and "nothing found" in text(page)
    assert [row[0] for row in rows(page, "Quality, active terms, size")[1:]] == [HOSTILE, f"{HOSTILE} (2)"]


def _term(term: str, expansion: str = "") -> dict:
    return {"term": term, "in query": 1.0, "in passage": 1.0, "share": 0.5, "expansion of": expansion}


def test_matched_terms_are_marked_and_expansions_told_apart(two, tmp_path):
    terms = [_term("red"), _term("cherry", "query"), _term("##ples"), _term("fruit", "passage")]
    right = JudgedDocument("d1", "", "Red apples, a cherry; reddish", 3, 4.25, terms)
    wrong = JudgedDocument("d2", "the title", "blue", None, 5.0, [])
    error = QueryError(
        "q1", "red fruit", 0.25, 0.75, "wrong expansion", "the sea is ahead", right, wrong, [("sea", 2.25)]
    )
    page = written(tmp_path, [two], ErrorAnalysis([error], {"wrong expansion": 1}, [("sea", 2.25)]))
    marks = page.xpath("//*[@id='errors']//*[@class='columns']//mark")
    assert [(mark.text, mark.get("class")) for mark in marks] == [
        ("Red", None),
        ("apples", None),
        ("cherry", "expansion"),
    ]
    expansions = [item.text_content().split()[0] for item in page.xpath("//li[@class='expansion']")]
    assert expansions == ["cherry", "fruit"]
    shown = text(page.get_element_by_id("errors"))
    assert "Right: d1, rank 3, score 4.25" in shown and "Wrong: d2, beyond the first hits, score 5.00" in shown
    assert (
        "the sea is ahead" in shown
        and "0.250 in place of 0.750" in shown
        and "ahead by: sea 2.25" in shown
        and "sea 2.2" in shown
    )
    assert rows(page, "Errors by cause") == [["cause", "errors"], ["wrong expansion", "1"]]
    assert "Begin with the most frequent cause of errors: wrong expansion, 1 of 1." in page.text_content()


@pytest.mark.parametrize("count", [1, 40])
def test_one_system_is_no_comparison(tmp_path, count):
    data = collection(count)
    page = written(tmp_path, [results(data, evaluation("alone", data, np.full(count, 0.5)))])
    assert (
        not {"comparisons", "queries"} & {*page.xpath("//@id")} and "no other to compare it with" in page.text_content()
    )
    assert rows(page, "Mean AP by parity")[1] == ["even", f"{(count + 1) // 2}", "0.5000"]
    assert sorted(path.name for path in (tmp_path / "report_plots").iterdir()) == ["latency.png", "quality.png"]


def test_one_query_and_no_documents_are_enough(tmp_path):
    data = collection(1)._replace(documents=[])
    both = results(data, evaluation("a", data, [0.0]), evaluation("b", data, [0.0], timed=False))
    page = written(tmp_path, [both])
    assert "b is as good as a: AP +0.000 (+0.000 to +0.000), p 1.000; 0 won, 1 tied, 0 lost." in text(page)
    assert rows(page, "Latency of a query in ms, throughput")[2] == ["b"] + ["-"] * 11
    assert "documents," not in page.xpath("//header/p")[0].text


def test_other_collections_have_a_table_and_what_was_lost_there(two, tmp_path):
    data = collection(60)
    lost = results(data, evaluation("a", data, np.full(60, 0.9)), evaluation("b", data, np.full(60, 0.1)), name="other")
    page = written(tmp_path, [two, lost])
    assert [row[1] for row in rows(page, "Systems on other")] == ["AP", "0.9000", "0.1000"]
    assert f"On other: {lost.comparisons[0]}." in text(page.find_class("findings")[0])
    assert f"{lost.comparisons[0]}." in text(page.get_element_by_id("elsewhere"))


def test_a_large_collection_makes_no_large_page(tmp_path, monkeypatch):
    monkeypatch.setattr(significance, "RESAMPLES", 100)  # 10,000 take seconds
    data, rng = collection(10_000), np.random.default_rng(0)
    both = results(data, *(evaluation(name, data, rng.random(10_000)) for name in "ab"))
    shown = JudgedDocument("d", "title", "text " * 2000, 1, 1.0, [_term("text")] * 10)
    errors = [QueryError(f"q{i}", "text " * 2000, 0.0, 1.0, "cause", "why", shown, shown, []) for i in range(3000)]
    page = written(tmp_path, [both], ErrorAnalysis(errors, {"cause": 3000}, [(f"w{i}", 1.0) for i in range(5000)]))
    assert (tmp_path / "report.html").stat().st_size < 1_500_000
    assert len(list(page.get_element_by_id("queries").iter("details"))) == 2 * QUERIES_SHOWN
    assert len(list(page.get_element_by_id("errors").iter("details"))) == ERRORS_SHOWN
    assert f"The first {ERRORS_SHOWN} of 3,000 errors." in page.text_content()
    assert "of 10,000; each opens" in text(page)
