"""Dense vectors beside the sparse ones of an index."""

import numpy as np
import pytest

from utils.records import Document
from utils.search.dense import DenseEncoder
from utils.search.document_index import DocumentIndex, models_of_index
from utils.search.fusion import fuse
from utils.search.searcher import DocumentSearch
from utils.splade.encoder import SpladeEncoder

TEXTS = {
    "brakes": "To bleed the brakes, open the valve at the rear left wheel first.",
    "heater": "The heater needs two minutes before it blows warm air.",
    "tires": "Check the tire pressure while the tires are cold.",
    "empty": " ",
    "long": " ".join(f"Part {number} is at the back of the shop." for number in range(60)) + " Parrots eat seeds.",
}
QUERY = "how long until the cabin gets hot?"


@pytest.fixture(scope="module")
def model():
    return SpladeEncoder.from_pretrained("splade-tiny", "cpu", max_length=64)


@pytest.fixture(scope="module")
def dense():
    return DenseEncoder("minilm", "cpu")


def documents(texts=TEXTS):
    return [Document(id=name, text=text) for name, text in texts.items()]


@pytest.fixture(scope="module")
def folder(model, dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense") / "index"
    with DocumentIndex(model, folder, write=True, dense=dense) as index:
        index.add(documents())
    return folder


def scores(index, hits):
    names = index.documents(hit.document for hit in hits)
    return {names[hit.document].id: hit.score for hit in hits}


def test_documents_are_ranked_by_the_cosine_of_their_best_passages(folder, model, dense):
    with DocumentIndex(model, folder) as index:
        query = dense.encode(["what do birds feed on?"], queries=True)[0]
        found = scores(index, index.search(dense=query, top_k=10))
        passages = {d.id: index.passages(index.passages_of(d.number)).values() for d in map(index.find, TEXTS)}
    texts = {name: [passage.text for passage in parts] for name, parts in passages.items() if name != "empty"}
    cosines = {name: float((dense.encode(parts) @ query).max()) for name, parts in texts.items()}
    assert found == pytest.approx(cosines, abs=2e-3) and next(iter(found)) == "long" and len(texts["long"]) > 2
    assert list(found) == sorted(cosines, key=lambda name: -cosines[name])


def test_a_hybrid_search_adds_all_that_the_index_has(folder, model):
    with DocumentIndex(model, folder) as index:
        alone = {kind: DocumentSearch(index, model, kind) for kind in ("splade", "bm25", "dense")}
        by_kind = {kind: scores(index, search.rank(search.encode(QUERY), 100)) for kind, search in alone.items()}
        hybrid = DocumentSearch(index, model)
        assert scores(index, hybrid.rank(hybrid.encode(QUERY), 100)) == pytest.approx(fuse(by_kind))
        weights = {"bm25": 0.25, "dense": 0.75}
        weighted = DocumentSearch(index, model, fusion="ranks", weights=weights)
        expected = fuse({kind: by_kind[kind] for kind in weights}, "ranks", weights)
        assert scores(index, weighted.rank(weighted.encode(QUERY), 100)) == pytest.approx(expected)
        assert hybrid.search(QUERY, 1)[0]["id"] == alone["dense"].search(QUERY, 1)[0]["id"] == "heater"
        assert alone["dense"].search(QUERY, 1)[0]["terms"] == alone["dense"].search(QUERY, 1)[0]["words"] == []


def test_dense_vectors_are_kept_changed_and_removed(folder, model, dense, tmp_path):
    copy = tmp_path / "index"
    with DocumentIndex(model, copy, write=True, dense=dense) as index:
        index.add(documents())
        index.add([Document(id="heater", text="Parrots are birds.")])
        index.remove(["brakes"])
    query = dense.encode(["parrots are birds"], queries=True)[0]
    with DocumentIndex(None, copy, write=True, rebuild=True) as index:
        rebuilt = scores(index, index.search(dense=query, top_k=10))
    with DocumentIndex(model, copy) as index:
        found = scores(index, index.search(dense=query, top_k=10))
        kept = index.passages(index.passages_of(index.find("heater").number)).values()
    assert found == rebuilt and next(iter(found)) == "heater" and "brakes" not in found
    (passage,) = kept
    np.testing.assert_allclose(passage.dense, dense.encode(["Parrots are birds."])[0], atol=1e-3)


def test_an_index_is_of_its_dense_model(folder, model, dense, tmp_path):
    assert models_of_index(folder)[1].endswith("minilm")
    with pytest.raises(ValueError, match=r"was made with the dense model .*minilm; name it"):
        DocumentIndex(model, folder, write=True)
    with DocumentIndex(model, tmp_path / "sparse", write=True) as index:
        index.add(documents())
        with pytest.raises(ValueError, match="search by dense: the index has no such vectors; it has splade, bm25"):
            DocumentSearch(index, model, "dense")
    with pytest.raises(
        ValueError, match=r"sparse: has no dense vectors, .* name another folder to make one with minilm"
    ):
        DocumentIndex(model, tmp_path / "sparse", dense=dense)
