"""The index of documents: what is found, what is encoded again, and what is left of it after a crash."""

import contextlib
import datetime
import itertools
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from utils.records import Document, replace_surrogates
from utils.search import ingestion
from utils.search.document_index import DocumentIndex, models_of_index
from utils.search.filters import parse_filters
from utils.search.fusion import fuse
from utils.search.index import VectorIndex
from utils.search.lexical import BM25Index, bm25_weights
from utils.search.store import PassageStore, StoredPassage, document_of
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import EMPTY_VECTOR, SparseVector, to_csr

LIMIT = 32  # tokens
FILLER = " ".join(f"Engine number {i} needs oil and a new filter." for i in range(40))
TEXTS = [
    f"{FILLER} Parrots eat sunflower seeds.",
    "",
    "Parrots are birds.",
    "Bread is baked from flour and water.",
    " ".join(f"Ship number {i} carries oil over the sea." for i in range(40)),
]
QUERY = "engine oil and water"


@pytest.fixture(scope="module")
def model():
    return SpladeEncoder.from_pretrained("splade-tiny", "cpu", max_length=LIMIT, precision="float32")


@pytest.fixture(scope="module")
def index(model):
    return made(model)


@pytest.fixture
def encoded(model, monkeypatch):
    """Return the list of all texts that are encoded from here on."""
    texts, encode = [], SpladeEncoder.encode_stream

    def encode_and_note(self, stream, *options, **named):
        yield from encode(self, (texts.append(text) or text for text in stream), *options, **named)

    monkeypatch.setattr(SpladeEncoder, "encode_stream", encode_and_note)
    return texts


def documents(texts=TEXTS):
    return [Document(id=f"d{number}", text=text, metadata={"number": number}) for number, text in enumerate(texts)]


def made(model, folder=None, texts=TEXTS):
    index = DocumentIndex(model, folder, write=True)
    index.add(documents(texts))
    return index


def found(index, model, query=QUERY, where=()):
    """Return the ids and scores of all documents by both kinds of search."""
    hits = index.search(model.encode_query(query), query, 1000, parse_filters(where))
    names = index.documents(hit.document for hit in hits)
    return {names[hit.document].id: round(hit.score, 5) for hit in hits}


def by_words(index, query):
    """Return the ids of all documents with a word of the query."""
    hits = index.search(words=query, top_k=1000)
    return {document.id for document in index.documents(hit.document for hit in hits).values()}


def all_passages(index):
    return index.passages(itertools.chain.from_iterable(map(index.passages_of, range(len(index)))))


def test_a_long_document_is_found_by_a_sentence_at_its_end(index, model):
    best = index.search(model.encode_query("what seeds do parrots eat?"), top_k=1)[0]
    passage = index.passages([best.passage])[best.passage]
    assert best.document == document_of(best.passage) == 0 and "sunflower seeds" in passage.text
    assert not passage.text.startswith("Engine number 0")


def test_documents_within_the_limit_are_encoded_as_they_are(index, model):
    assert index.long_documents == 2 and len(index) == 5
    for number, expected in zip((1, 2, 3), model.encode(TEXTS[1:4])):
        (passage,) = index.passages(index.passages_of(number)).values()
        assert passage.text == TEXTS[number] and passage.terms.indices.tolist() == expected.indices.tolist()
        np.testing.assert_allclose(passage.terms.values, expected.values, rtol=2**-10)
    exactly = " ".join(["engine"] * (LIMIT - 2))
    assert len(made(model, texts=[exactly]).passages_of(0)) == 1
    assert len(made(model, texts=[f"{exactly} engine"]).passages_of(0)) == 2


def test_the_best_documents_are_found_once_each_by_their_best_passages(index, model):
    query, passages = model.encode_query(QUERY), all_passages(index)
    matrix = to_csr([passage.terms for passage in passages.values()], model.vocabulary_size)
    products = (matrix @ to_csr([query], model.vocabulary_size).T).toarray().ravel().tolist()
    scores = {}
    for number, score in zip(passages, products):
        scores[document_of(number)] = max(score, scores.get(document_of(number), 0))
    expected = sorted((document for document in scores if scores[document]), key=lambda document: -scores[document])
    assert expected[0] == 0 and sum(product > scores[expected[1]] for product in products) > 4
    for top_k in (1, 2, 3, 4, 5, 10**30):
        hits = index.search(query, top_k=top_k)
        assert [hit.document for hit in hits] == expected[:top_k]
        assert [hit.score for hit in hits] == pytest.approx([scores[hit.document] for hit in hits], rel=1e-5)
        assert [document_of(hit.passage) for hit in hits] == [hit.document for hit in hits]


def test_words_are_searched_by_bm25(model):
    texts = ["The engines burn oil.", "oil oil oil", "Baking bread, and baked bread", "An engine"]
    words, index = BM25Index(texts, "en"), made(model, texts=texts)
    for query in ("engine oil", "baking", "oil oil bread engines zebra"):
        hits, expected = index.search(words=query, top_k=10), words.search([query], 10)[0]
        assert [hit.document for hit in hits] == [number for number, _ in expected] and hits
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], rel=1e-3)
    assert index.search(words="the", top_k=10) == index.search(words="", top_k=10) == []


def test_both_searches_are_fused_by_their_shares(index, model):
    vector = model.encode_query(QUERY)
    alone = {"splade": index.search(vector, top_k=100), "bm25": index.search(words=QUERY, top_k=100)}
    both = {leg: {hit.document: hit.score for hit in hits} for leg, hits in alone.items()}
    hits = index.search(vector, QUERY, 3)
    fused = fuse(both)
    assert {hit.document: hit.score for hit in hits} == {
        d: fused[d] for d in sorted(fused, key=lambda d: -fused[d])[:3]
    }
    assert 1 < hits[0].score < 2 and len(both["splade"]) > len(both["bm25"])


def test_conditions_hold_for_all_kinds_of_search(index, model):
    assert set(found(index, model)) >= {"d0", "d3", "d4"}
    assert set(found(index, model, where=["number>0"])) == set(found(index, model)) - {"d0"}
    assert set(found(index, model, where=["id=d3", "id=d4"])) == {"d3", "d4"}
    with pytest.raises(ValueError, match="'kind': no document has this field; they have id, number"):
        found(index, model, where=["kind=a"])


def test_only_what_has_changed_is_encoded_again(model, tmp_path, encoded):
    given = documents()
    with DocumentIndex(model, tmp_path / "index", write=True) as index:
        assert index.add(given) == (5, 0, 0, 0)
    encoded.clear()
    given[2].text, given[3].metadata = "Penguins are birds.", {"number": 33}
    given.append(Document(id="new", title="Cats", text="They purr.", metadata={"kind": "pets"}))
    with DocumentIndex(model, tmp_path / "index", write=True) as index:
        assert index.add(iter(given)) == (1, 1, 1, 3)
        assert encoded == ["Penguins are birds.", "Cats\nThey purr."]
        assert by_words(index, "penguins") == {"d2"} and by_words(index, "parrots") == {"d0"}
        assert set(found(index, model, where=["number=33"])) == {"d3"} and not found(index, model, where=["number=3"])
        assert set(found(index, model, "cats", ["kind=pets"])) == {"new"}
        assert index.add(given) == (0, 0, 0, 6)
    fresh = DocumentIndex(model)
    fresh.add(given)
    with DocumentIndex(model, tmp_path / "index") as reopened:
        assert found(reopened, model) == pytest.approx(found(fresh, model), rel=0.01) and len(reopened) == 6


def test_documents_are_removed_by_id(model, tmp_path):
    with made(model, tmp_path / "index") as index:
        assert index.remove(["d0", "none", "d2", "d0"]) == ["none", "d0"]
        assert list(index.ids()) == ["d1", "d3", "d4"] and "d0" not in found(index, model)
        index.add(documents()[:1])  # numbers go on from the highest
        assert by_words(index, "parrots") == {"d0"}
    with DocumentIndex(model, tmp_path / "index") as index:
        assert list(index.ids()) == ["d1", "d3", "d4", "d0"] and by_words(index, "parrots") == {"d0"}
        assert set(found(index, model, where=["number=0"])) == {"d0"}


def test_words_are_of_the_language_of_the_documents_whatever_was_asked_before(model):
    index = DocumentIndex(model)
    assert index.search(words="mirrors") == [] and index.language is None
    index.add(documents(["Adjust the mirror before you drive the truck to the harbor."]))
    assert index.language == "en" and by_words(index, "mirrors") == {"d0"}


def test_an_id_that_comes_twice_is_the_last_document_of_it(model):
    index = DocumentIndex(model)
    assert index.add([Document(id="a", text="oil " * 50), Document(id="a", text="bread")]) == (1, 1, 0, 0)
    assert not by_words(index, "oil") and by_words(index, "bread") == {"a"} and len(index) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: {"model": "other"},
            "index: was made with another model than ./other, splade-tiny; name",
        ),
        (lambda folder: folder.joinpath("engine/stamp").write_text("other"), "engine: is not of this index, or a part"),
        (lambda folder: {"max_length": 16}, "index: was made with `max_length=32`, not 16;"),
        (lambda folder: {"language": "de"}, "index: was made with `language=en`;"),
        (lambda folder: folder.joinpath("store.sqlite").write_bytes(b"x" * 5000), "sqlite: is no index, or a damaged"),
        (lambda folder: folder.joinpath("store.sqlite").unlink(), "index: holds other files, and no index"),
        (lambda folder: shutil.rmtree(folder / "engine"), "engine: is missing; .* --rebuild makes its files anew"),
        (
            lambda folder: folder.joinpath("engine/edge_config.json").write_text("{"),
            "engine cannot read it: .* --rebuild",
        ),
    ],
)
def test_an_index_that_does_not_fit_is_refused_by_name(model, tmp_path, change, message):
    made(model, tmp_path / "index").close()
    options = change(tmp_path / "index")
    options = options if isinstance(options, dict) else {}
    other = SpladeEncoder.from_pretrained("splade-tiny", "cpu", max_length=options.get("max_length", LIMIT))
    if "model" in options:
        other.name = "./other"
        other.model.get_output_embeddings().bias.data += 0.1
    with pytest.raises(ValueError, match=message):
        DocumentIndex(other, tmp_path / "index", write=True, language=options.get("language"))


def test_an_index_that_is_not_there_is_not_made_for_a_search(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"index: no index in this folder; make one with embedder\.py"):
        DocumentIndex(model, tmp_path / "index")
    assert not list(tmp_path.iterdir())


def test_the_engines_files_are_made_anew_without_the_model(model, tmp_path):
    with made(model, tmp_path / "index") as index:
        before = found(index, model)
    shutil.rmtree(tmp_path / "index" / "engine")
    with DocumentIndex(None, tmp_path / "index", write=True, rebuild=True):
        pass
    with DocumentIndex(model, tmp_path / "index") as index:
        assert found(index, model) == before and set(found(index, model, where=["number=3"])) == {"d3"}


def open_in_a_process(folder, write, answers):
    try:
        DocumentIndex(None, folder, write=write).close()
        answers.put("opened")
    except ValueError as error:
        answers.put(str(error))


@pytest.mark.parametrize(
    ("first", "second", "opens"), [(True, True, 0), (True, False, 0), (False, True, 0), (False, False, 1)]
)
def test_one_process_changes_an_index_and_many_search_it(model, tmp_path, processes, first, second, opens):
    made(model, tmp_path / "index").close()
    answers = processes.Queue()
    with DocumentIndex(model, tmp_path / "index", write=first):
        process = processes.Process(target=open_in_a_process, args=(tmp_path / "index", second, answers))
        process.start()
        answer = answers.get(timeout=60)
        process.join()
    assert answer == "opened" if opens else "index: another run is at work on it" in answer


def test_what_models_an_index_has_is_not_read_while_it_is_changed(model, tmp_path):
    folder = tmp_path / "index"
    with made(model, folder), pytest.raises(ValueError, match="index: another run is at work on it"):
        models_of_index(folder)
    with DocumentIndex(model, folder):
        assert models_of_index(folder) == ("splade-tiny", None)


def test_an_update_that_broke_off_is_kept_and_said(model, tmp_path, monkeypatch, capsys, encoded):
    monkeypatch.setattr(ingestion, "READ_AHEAD", 2)
    monkeypatch.setattr(ingestion, "COMMIT_PASSAGES", 1)

    def stream():
        yield from documents()[1:5]
        raise OSError("the disk is gone")

    with DocumentIndex(model, tmp_path / "index", write=True) as index, pytest.raises(OSError, match="disk is gone"):
        index.add(stream())
    capsys.readouterr()
    with DocumentIndex(model, tmp_path / "index") as index:
        assert "its last update was interrupted; 3 documents are in it" in capsys.readouterr().out
        assert by_words(index, "parrots") == {"d2"}
    encoded.clear()
    with DocumentIndex(model, tmp_path / "index", write=True) as index:
        assert index.add(documents()) == (2, 0, 0, 3) and "Parrots are birds." not in encoded
        complete = found(index, model)
    capsys.readouterr()
    with DocumentIndex(model, tmp_path / "index") as index:
        assert found(index, model) == complete == found(made(model), model) and not capsys.readouterr().out


@pytest.mark.parametrize("engine", ["behind", "broken", "missing"])
def test_what_the_engine_lost_in_a_crash_is_taken_from_the_store(model, tmp_path, monkeypatch, engine):
    folder = tmp_path / "index"
    made(model, folder, TEXTS[:3]).close()
    shutil.copytree(folder / "engine", tmp_path / "before")

    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr(VectorIndex, "flush", killed)
        with DocumentIndex(model, folder, write=True) as index, pytest.raises(KeyboardInterrupt):
            index.add(documents()[1:])
    shutil.rmtree(folder / "engine")
    if engine != "missing":
        shutil.copytree(tmp_path / "before", folder / "engine")
    if engine == "broken":
        (folder / "engine" / "edge_config.json").write_text("")
    with DocumentIndex(model, folder) as index:
        assert found(index, model) == found(made(model), model) and len(index) == 5


def test_weights_of_words_follow_the_mean_length(model, tmp_path):
    with made(model, tmp_path / "index", TEXTS[1:4]) as index:
        index.add(documents())
        fresh = made(model, texts=[*TEXTS[1:4], TEXTS[4], TEXTS[0]])
        hits, expected = (i.search(words="oil bread parrots", top_k=5) for i in (index, fresh))
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected])


def test_texts_that_utf8_cannot_hold_and_odd_metadata_are_kept(model):
    index = DocumentIndex(model)
    metadata = {'a\'b."c"': 1, "": "x", "n": [[1, "é"]], "big": 10**30, "when": "2024-05-01"}
    index.add([Document(id="caf\udce9", title="\udcff", text="oil \udcff\0 level", metadata=metadata)])
    (hit,) = index.search(words="oil", where=parse_filters(['a\'b."c"=1', "n=é", "when<2025-01-01", f"big={10**30}"]))
    document = index.documents([hit.document])[hit.document]
    assert document.id == "caf\ufffd" and document.metadata == replace_surrogates(metadata)
    assert (
        index.add([Document(id="caf\udce9", title="\udcff", text="oil \udcff\0 level", metadata=metadata)]).unchanged
        == 1
    )


def test_nothing_is_found_in_an_empty_index(model, tmp_path):
    with DocumentIndex(model, tmp_path / "index", write=True) as index:
        assert index.add([]) == (0, 0, 0, 0) and not found(index, model)
    with DocumentIndex(model, tmp_path / "index") as index:
        assert not found(index, model) and len(index) == 0 and index.mean_terms == 0


def test_threads_find_what_one_thread_finds(index, model):
    query = model.encode_query(QUERY)

    def search(_):
        own = made(model)
        assert all_passages(own).keys() == all_passages(index).keys()
        return own.search(query, QUERY, 3), index.search(query, QUERY, 3)

    with ThreadPoolExecutor(4) as pool:
        for hits in itertools.chain.from_iterable(pool.map(search, range(4))):
            assert hits == index.search(query, QUERY, 3)


def test_passages_are_stored_with_their_headings(model):
    index = made(model, texts=[f"# Engines\n\n{FILLER}\n\n# Birds\n\nParrots eat seeds."])
    passages = list(all_passages(index).values())
    assert isinstance(passages[0], StoredPassage)
    assert [passages[0].heading, passages[-1].heading] == ["Engines", "Birds"]


@pytest.mark.parametrize("old", ["oil engine", "bread"])
def test_of_an_id_that_comes_again_in_one_update_the_last_document_counts(model, old):
    index = made(model, texts=[old])
    index.add([Document(id="d0", text="bread"), Document(id="d0", text="oil engine", metadata={"a": 1})])
    assert by_words(index, "engine") == {"d0"} and not by_words(index, "bread")


def test_an_index_that_was_opened_to_be_searched_is_not_changed(model, tmp_path):
    made(model, tmp_path / "index").close()
    with DocumentIndex(model, tmp_path / "index") as index:
        for change in (lambda: index.add(documents()), lambda: index.remove(["d0"])):
            with pytest.raises(ValueError, match="index: was opened to be searched, not changed"):
                change()
    with (
        DocumentIndex(None, tmp_path / "index", write=True) as index,
        pytest.raises(ValueError, match="was opened without a model"),
    ):
        index.add(documents())


def test_scores_of_words_are_those_of_what_is_left(model):
    texts = ["oil"] * 60 + ["bread"] * 20
    index, fresh = made(model, texts=texts), made(model, texts=["oil", *texts[60:]])
    index.remove([f"d{number}" for number in range(1, 60)])
    assert [h.score for h in index.search(words="oil")] == [h.score for h in fresh.search(words="oil")]


def test_metadata_that_cannot_be_kept_are_named_and_cost_no_document(model):
    index = made(model)
    before = found(index, model)
    with pytest.raises(ValueError, match="document 'd2': its metadata cannot be kept"):
        index.add([Document(id="d2", text="penguins", metadata={"a": {("b",): 1}})])
    assert found(index, model) == before
    index.add([Document(id="d2", text="penguins", metadata={"day": datetime.date(2024, 5, 1), "text": "y\udc00"})])
    assert by_words(index, "penguins") == {"d2"} and "d2" in found(index, model, "penguins", ["day=2024-05-01"])


def test_an_interrupt_leaves_each_document_as_before_or_as_after(model, tmp_path, monkeypatch):
    write = PassageStore._many

    def interrupted(self, statement, rows):
        if "contents" in statement and "penguins 2" in rows[0]:
            raise KeyboardInterrupt
        write(self, statement, rows)

    monkeypatch.setattr(PassageStore, "_many", interrupted)
    changed = documents([f"penguins {number}" for number in range(5)])
    with made(model, tmp_path / "index") as index, pytest.raises(KeyboardInterrupt):
        index.add(changed)
    monkeypatch.undo()
    with DocumentIndex(model, tmp_path / "index") as index:
        assert by_words(index, "penguins") == {"d0", "d1"} and by_words(index, "parrots") == {"d2"}
    with DocumentIndex(model, tmp_path / "index", write=True) as index:
        assert index.add(changed) == (0, 3, 0, 2) and len(by_words(index, "penguins")) == 5


def test_metadata_that_json_reads_in_another_way_are_the_same_again(model):
    index = DocumentIndex(model)
    given = [Document(id="a", text="oil", metadata={"n": float("nan"), "t": (1, 2)})]
    assert index.add(given).added == index.add(given).unchanged == 1


def test_a_failed_update_leaves_an_index_that_can_be_searched(model):
    index = made(model, texts=[FILLER] * 3)

    def stream():
        yield from (Document(id=f"d{number}", text="bread") for number in range(3))
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        index.add(stream())
    assert by_words(index, "bread filter")


def test_of_metadata_that_come_again_in_one_update_the_last_count(model):
    index = DocumentIndex(model)
    old, new = (Document(id="a", text="oil", metadata={"year": year}) for year in (2020, 2021))
    index.add([old])
    assert index.add([new, old]) == (0, 0, 2, 0) and index.find("a").metadata == {"year": 2020}


@pytest.mark.parametrize("language", ["DE", "de-AT", "german"])
def test_a_language_is_known_by_its_names(model, language):
    index = DocumentIndex(model, language=language)
    index.add(documents(["Die Häuser sind alt."]))
    assert by_words(index, "Haus") == {"d0"} and index.language == "de"


def test_blank_documents_have_no_language(model):
    index = DocumentIndex(model)
    index.add(documents([" "]))
    index.add(documents(["Adjust the mirror before you drive the truck to the harbor."]))
    assert index.language == "en" and by_words(index, "mirrors") == {"d0"}


def test_a_word_may_stand_any_number_of_times():
    store = PassageStore()
    counts = SparseVector(np.array([3, 7], np.int32), np.array([70_000, 1], np.float32))
    store.put("a", "", {}, b"", [StoredPassage("", "", EMPTY_VECTOR, counts)])
    kept = store.passages([0])[0].words
    weights = bm25_weights(kept, 10.0).values
    assert kept.values.tolist() == [65504, 1] and 0 < weights[1] < weights[0] <= 1


def test_a_file_is_no_index(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file: is a file; an index is a folder"):
        DocumentIndex(model, tmp_path / "file", write=True)
    (tmp_path / "other").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "other" / "store.sqlite")) as database:
        database.execute("CREATE TABLE mine (x)")
    before = (tmp_path / "other" / "store.sqlite").read_bytes()
    with pytest.raises(ValueError, match=r"store\.sqlite: is no index, but another database"):
        DocumentIndex(model, tmp_path / "other")
    assert (tmp_path / "other" / "store.sqlite").read_bytes() == before


def test_a_full_disk_is_named_and_costs_nothing_that_was_there(model, tmp_path):
    with made(model, tmp_path / "index") as index:
        before = found(index, model)
        index._store._all("PRAGMA max_page_count = 60")
        with pytest.raises(OSError, match=r"store\.sqlite: database or disk is full"):
            index.add(Document(id=f"new {number}", text=FILLER) for number in range(100))
        index._store._all("PRAGMA max_page_count = 100000")
        assert before.items() <= found(index, model).items() or len(index) > 5
    with DocumentIndex(model, tmp_path / "index", write=True) as index:
        assert set(before) <= set(found(index, model)) and index.add(documents()).unchanged == 5


def test_an_index_that_is_dropped_can_be_opened_again(model, tmp_path):
    index = made(model, tmp_path / "index")
    del index
    assert len(DocumentIndex(model, tmp_path / "index")) == 5
