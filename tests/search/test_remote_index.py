"""The index on a server: the same hits as an index on disk, few requests, and what failures leave of it."""

import itertools
import zlib

import numpy as np
import pytest
from qdrant_server import Fault

from utils.records import Document
from utils.search import ingestion, remote_index
from utils.search.collection import PointCollection
from utils.search.document_index import DocumentIndex
from utils.search.filters import parse_filters
from utils.search.remote_index import RemoteIndex
from utils.search.searcher import DocumentSearch
from utils.splade.encoder import SpladeEncoder

LIMIT = 24  # tokens
SHIPS = " ".join(f"Ship number {i} carries oil over the sea." for i in range(8))
TEXTS = [f"# Birds\n\n{SHIPS} Parrots eat sunflower seeds.", "", "Parrots are birds.", "Bread is baked from flour."]
QUERY = "oil, seeds and birds"


class HashedWords:
    """A dense encoder of 8 dimensions, as DenseEncoder is one."""

    name, fingerprint, dimensions = "hashed-words", "1", 8

    def encode(self, texts, queries=False):
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in zip(vectors, texts):
            for word in text.lower().split():
                row[zlib.crc32(word.encode()) % self.dimensions] += 1
            row /= max(np.linalg.norm(row), 1e-9)
        return vectors


@pytest.fixture(scope="module")
def model():
    return SpladeEncoder.from_pretrained("splade-tiny", "cpu", max_length=LIMIT, precision="float32")


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


def opened(qdrant, model, write=True, retries=5, timeout=60, **options):
    return RemoteIndex(model, PointCollection(qdrant.url, "docs", retries, timeout), write, **options)


def made(qdrant, model, texts=TEXTS, **options):
    index = opened(qdrant, model, **options)
    index.add(documents(texts))
    return index


def found(index, model, query=QUERY, where=(), **options):
    """Return the ids and scores of all documents by vectors and words, best first."""
    hits = index.search(model.encode_query(query), query, top_k=1000, where=parse_filters(where), **options)
    names = index.documents(hit.document for hit in hits)
    return {names[hit.document].id: hit.score for hit in hits}


def by_words(index, query):
    return {index.documents([hit.document])[hit.document].id for hit in index.search(words=query, top_k=1000)}


def stored(qdrant):
    """Return (document, place) of all that is on the server."""
    payloads = [record["payload"] for record in qdrant.collections["docs"].records()]
    return sorted((payload["document"], payload["place"]) for payload in payloads)


def changes(qdrant):
    """Return the requests that change points."""
    calls = ("PUT /collections/docs/points", "POST /collections/docs/points/delete")
    return [request for request in qdrant.requests if f"{request.method} {request.path}" in calls]


@pytest.mark.parametrize("shards", [1, 3])
def test_hits_and_scores_are_those_of_an_index_on_disk(qdrant, model, shards):
    dense = HashedWords()
    remote, local = made(qdrant, model, dense=dense, shards=shards), DocumentIndex(model, dense=dense)
    local.add(documents())
    legs = {"vector": model.encode_query(QUERY), "words": QUERY, "dense": dense.encode([QUERY])[0]}
    for names in (["vector"], ["dense"], *([["words"], ["vector", "words"], list(legs)] if shards == 1 else [])):
        query = {name: legs[name] for name in names}
        for top_k, where in itertools.product((1, 10, 10**30), ([], ["number>=2"], ["number!=0", "id=d2", "id=d3"])):
            hits, expected = (i.search(**query, top_k=top_k, where=parse_filters(where)) for i in (remote, local))
            assert [hit.document for hit in hits] == [f"d{hit.document}" for hit in expected]
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], rel=1e-3)
            passages = [
                index.passages([h.passage for h in part]) for index, part in ((remote, hits), (local, expected))
            ]
            for hit, other in zip(hits, expected):
                one, two = passages[0][hit.passage], passages[1][other.passage]
                assert (one.text, one.heading) == (two.text, two.heading)
                assert one.terms.indices.tolist() == two.terms.indices.tolist()
                assert remote.shared_words(QUERY, one) == local.shared_words(QUERY, two)
    assert len(qdrant.collections["docs"].shards) == shards and len(remote) == len(local) == 4
    assert remote.describe() == local.describe().replace(f", {local.mean_terms:.1f} terms each", "")


def test_all_legs_of_a_search_are_one_request(qdrant, model):
    index = made(qdrant, model, TEXTS[2:])
    before = len(qdrant.requests)
    index.search(model.encode_query(QUERY), QUERY, where=parse_filters(["number=0"]))
    assert [request.path for request in qdrant.requests[before:]] == ["/collections/docs/points/query/batch"]
    assert index.search(model.encode_query(""), "") == [] and len(qdrant.requests) == before + 1


def test_only_what_has_changed_is_encoded_again(qdrant, model, encoded):
    given = documents()
    assert opened(qdrant, model).add(given) == (4, 0, 0, 0)
    encoded.clear()
    given[0].text, given[2].metadata = "Penguins swim.", {"kind": "bird"}
    given.append(Document(id="new", title="Cats", text="They purr.", metadata={"kind": "pet"}))
    index = opened(qdrant, model)
    assert index.add(iter(given)) == (1, 1, 1, 2) and encoded == ["Penguins swim.", "Cats\nThey purr."]
    assert stored(qdrant) == [(f"d{number}", 0) for number in range(4)] + [("new", 0)]
    assert not by_words(index, "ship sunflower") and by_words(index, "penguins") == {"d0"}
    assert set(found(index, model, where=["kind=bird"])) == {"d2"} and not found(index, model, where=["number=2"])
    assert index.find("d2").metadata == {"kind": "bird"} and index.find("none") is None
    assert index.add(given) == (0, 0, 0, 5)


def test_documents_are_removed_by_id(qdrant, model):
    index = made(qdrant, model)
    assert index.remove(["d0", "none", "d2", "d0"]) == ["none", "d0"]
    assert sorted(index.ids()) == ["d1", "d3"] and stored(qdrant) == [("d1", 0), ("d3", 0)]
    assert "d0" not in found(index, model) and index.passages_of("d0") == []


def test_an_id_that_comes_twice_is_the_last_document_of_it(qdrant, model, monkeypatch):
    index = opened(qdrant, model)
    twice = [Document(id="a", text=SHIPS), Document(id="a", text="bread")]
    assert index.add(twice) == (1, 1, 0, 0) and stored(qdrant) == [("a", 0)] and by_words(index, "bread") == {"a"}
    monkeypatch.setattr(ingestion, "READ_AHEAD", 1)
    assert index.add([*twice, *twice]) == (0, 4, 0, 0) and stored(qdrant) == [("a", 0)]


def test_passages_are_sent_in_batches_by_number_and_by_size(qdrant, model, monkeypatch):
    index = made(qdrant, model, [f"Bird {number}." for number in range(10)], upsert_points=4)
    assert [len(request.body["points"]) for request in changes(qdrant)] == [4, 4, 2]
    monkeypatch.setattr(remote_index, "UPSERT_CHARACTERS", 1000)
    index.add([Document(id=f"n{number}", text="oil", metadata={"long": "x" * 400}) for number in range(4)])
    assert [len(request.body["points"]) for request in changes(qdrant)[3:]] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, (("Retry-After", "0"),)),
        Fault(429, (("Retry-After", "Thu, 26 Nov 2026 21:00:00 GMT"),)),
        Fault(503),
        Fault(close=True),
        Fault(close=True, done=True),
        Fault(cut=True, done=True),
        Fault(wait=1.2, done=True),
    ],
    ids=["busy", "busy until", "failing", "closed", "done and closed", "cut", "slow"],
)
def test_a_request_that_fails_is_made_again(qdrant, model, fault, capsys):
    index = opened(qdrant, model, timeout=1)
    qdrant.faults.extend([fault, fault] if not fault.wait else [fault])
    index.add(documents(TEXTS[2:]))
    assert f"{qdrant.url}: " in capsys.readouterr().out and not qdrant.faults
    assert stored(qdrant) == [("d0", 0), ("d1", 0)] and by_words(index, "bread") == {"d1"}


def test_each_request_of_an_update_and_of_a_search_survives_a_failure(qdrant, model):
    answer, failed = qdrant.answer, set()

    def fail_first(request, size):
        call = request.method, request.path, str(request.body)
        if call not in failed:
            failed.add(call)
            answer(request, size)  # it is done, and nobody learns of it
            return 500, b"{}"
        return answer(request, size)

    qdrant.answer = fail_first
    index = made(qdrant, model, TEXTS[2:], upsert_points=1)
    assert by_words(index, "birds and bread") == {"d0", "d1"} and list(index.passages(index.passages_of("d0")))
    assert index.remove(["d0"]) == [] and stored(qdrant) == [("d1", 0)]


def test_a_server_that_keeps_failing_is_named_once(qdrant, model):
    index = made(qdrant, model, TEXTS[2:], retries=2)
    qdrant.faults.extend([Fault(502)] * 3)
    with pytest.raises(OSError, match=rf"^{qdrant.url}: it answers 502; given up after 3 tries$"):
        index.search(words="bread")
    assert index.search(words="bread") and not qdrant.faults


@pytest.mark.parametrize(
    ("old", "new", "done"),
    [
        (TEXTS[0], "Bread is old.", 0),
        (TEXTS[0], "Bread is old.", 1),
        ("Bread is old.", TEXTS[0], 1),
        (TEXTS[0], TEXTS[0].replace("oil", "tea"), 2),  # what is listed first of it is new
    ],
    ids=["before", "shorter", "longer", "as long"],
)
def test_an_update_that_broke_off_is_said_and_repaired(qdrant, model, old, new, done, capsys, encoded):
    index = made(qdrant, model, [old, *TEXTS[1:]], upsert_points=2, retries=0)
    before, answer, changed = len(changes(qdrant)), qdrant.answer, documents([new, *TEXTS[1:]])

    def fail(request, size):
        return answer(request, size) if len(changes(qdrant)) - before <= done else (500, b"{}")

    qdrant.answer = fail
    with pytest.raises(OSError, match="it answers 500"):
        index.add(changed)
    assert len(changes(qdrant)) - before == done + 1
    qdrant.answer = answer
    capsys.readouterr()
    with opened(qdrant, model, write=False):
        assert "/collections/docs: its last update was interrupted; 4 documents are in it" in capsys.readouterr().out
    encoded.clear()
    with opened(qdrant, model) as index:
        assert index.add(changed) == (0, 1, 0, 3) and "Parrots are birds." not in encoded
    capsys.readouterr()
    with opened(qdrant, model, write=False):
        assert not capsys.readouterr().out
    texts = sorted(record["payload"]["text"] for record in qdrant.collections["docs"].records())
    assert texts == sorted([*encoded, *TEXTS[1:]])


def test_other_machines_changes_are_found(qdrant, model, monkeypatch):
    here, there = made(qdrant, model), opened(qdrant, model)
    there.add([Document(id="new", text="Bread and oil", metadata={"a b.c\"'é": "x"})])
    assert set(found(here, model, "bread", ["a b.c\"'é=x"])) == {"new"}
    with pytest.raises(ValueError, match=r"'kind': no document has this field; they have a b.*, id, number"):
        found(here, model, where=["kind=a"])
    search, search_passages = DocumentSearch(here, model), RemoteIndex._search_passages

    def search_and_remove(self, queries, where):
        hits = search_passages(self, queries, where)
        there.remove(["new"])
        return hits

    (hit,) = search.search("bread and oil", 1)
    monkeypatch.setattr(RemoteIndex, "_search_passages", search_and_remove)
    assert [hit["id"] for hit in search.search("bread", 1)] == []
    assert next(found["id"] for found in search.search("bread", 1)) == "d3"
    with pytest.raises(ValueError, match="/collections/docs: this passage was removed"):
        search.explain(search.encode("bread"), hit["passage"])


def test_what_does_not_fit_is_refused_by_name(qdrant, model):
    with pytest.raises(FileNotFoundError, match=r"/collections/docs: no such collection; make it with embedder\.py"):
        opened(qdrant, model, write=False)
    made(qdrant, model, TEXTS[2:], shards=2, replicas=3)
    assert qdrant.collections["docs"].options["write_consistency_factor"] == 2
    other = SpladeEncoder.from_pretrained("splade-tiny", "cpu", max_length=16)
    with pytest.raises(ValueError, match=r"docs: was made with `max_length=24`, not 16; .* another collection"):
        opened(qdrant, other)
    with pytest.raises(ValueError, match="docs: was made with `shards=2`, not 5;"):
        opened(qdrant, model, shards=5)
    with pytest.raises(ValueError, match="docs: was made with `language=en`;"):
        opened(qdrant, model, language="de")
    other.name = "./other"
    other.model.get_output_embeddings().bias.data += 0.1
    with pytest.raises(ValueError, match=r"docs: was made with another model than \./other, splade-tiny;"):
        opened(qdrant, other)
    with pytest.raises(ValueError, match="docs: was opened to be searched, not changed"):
        opened(qdrant, model, write=False).remove(["d0"])
    qdrant.collections["docs"].metadata = {"of": "another program"}
    with pytest.raises(ValueError, match="docs: is no index, but another collection"):
        opened(qdrant, model)


def test_a_server_without_metadata_is_refused(qdrant, model):
    qdrant.keeps_metadata = False
    with pytest.raises(OSError, match=r"this server keeps no metadata of collections, as Qdrant does since 1\.16"):
        opened(qdrant, model)
