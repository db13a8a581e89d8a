import numpy as np
import pytest
import scipy.sparse

from utils.records import TrainingExample
from utils.splade.encoder import SpladeEncoder
from utils.training.batches import collate, gather_step
from utils.training.neighborhoods import NeighborhoodSampler, nearest_documents
from utils.training.tokenization import tokenize_examples

TOPICS = ("bread", "brakes", "violin", "glacier")
PASSAGES_PER_TOPIC = 8


def passage_examples():
    """Three queries cut out of each passage; a passage's vector is that of its topic, with a little of its own."""
    rows = []
    for number in range(len(TOPICS) * PASSAGES_PER_TOPIC):
        words = [f"{TOPICS[number // PASSAGES_PER_TOPIC]} {part} {number}" for part in ("one", "two", "three")]
        for i, query in enumerate(words):
            rest = " and ".join(words[:i] + words[i + 1 :])
            options = {"positive_id": f"p{number}", "query_type": "sentence"}
            rows.append(TrainingExample(query=query, positive_document=rest, **options))
    return rows


def topic_vectors(examples, tokenized):
    vectors = np.random.default_rng(0).random((len(tokenized.documents.texts), len(TOPICS) + 3)) / 10
    for number, text in enumerate(tokenized.documents.texts):
        vectors[number, TOPICS.index(text.split()[0])] += 1
    return vectors


@pytest.fixture(scope="module")
def encoder():
    return SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="float32")


@pytest.mark.parametrize("sparse", [False, True])
def test_nearest_documents_are_those_of_the_highest_cosine(sparse):
    rng = np.random.default_rng(0)
    vectors = rng.random((300, 12)).astype(np.float32) * (rng.random((300, 12)) < 0.5)
    vectors[7] = 0  # a document without terms
    norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    similarities = (vectors / norms) @ (vectors / norms).T
    np.fill_diagonal(similarities, -np.inf)
    found = nearest_documents(scipy.sparse.csr_array(vectors) if sparse else vectors, 5)
    for row, rows in enumerate(found):
        assert row not in rows and len(set(rows)) == 5
        expected = np.sort(similarities[row])[-5:]
        np.testing.assert_allclose(np.sort(similarities[row][rows]), expected, atol=1e-5)
    assert nearest_documents(vectors[:3], 5).shape == (3, 2)


def test_a_step_is_of_one_neighborhood_and_of_different_passages(encoder):
    rows = passage_examples()
    tokenized = tokenize_examples(rows, encoder, share_passages=True)
    assert len(tokenized.documents.texts) == len(rows) / 3
    vectors = topic_vectors(rows, tokenized)
    sampler = NeighborhoodSampler(tokenized, vectors, [4], 2, 42)
    steps = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        steps += list(sampler)
    assert len(steps) == 2 * len(sampler) == 2 * len(rows) / 2 / 4
    for step in steps:
        passages = [rows[i].positive_id for i in step]
        assert len(set(passages)) == len(step) == 4
    own_topic = [len({rows[i].query.split()[0] for i in step}) == 1 for step in steps]
    assert np.mean(own_topic) > 0.5  # of 8 neighbors that are drawn from, 7 are of the topic
    assert len({rows[step[0]].positive_id for step in steps}) > len(steps) / 2
    again = NeighborhoodSampler(tokenized, vectors, [4], 2, 42)
    assert list(again) == steps[: len(steps) // 2]


def test_a_step_has_all_queries_of_its_passages_and_compares_none_with_the_text_that_it_stands_in(encoder):
    rows = passage_examples()
    rows[3] = TrainingExample(query="another question", positive_document=rows[2].positive_document, positive_id="p1")
    tokenized = tokenize_examples(rows, encoder, share_passages=True)
    longest = max((row.positive_document for row in rows[:3]), key=len)
    batch = collate([tokenized[0], tokenized[6]], encoder)
    inputs = gather_step(encoder(**batch["texts"][0]), batch)
    assert inputs.examples == 2 and inputs.queries.shape[0] == 6 and inputs.documents.shape[0] == 2
    queries = [tokenized.queries.texts[i] for i in inputs.query_indices]
    assert sorted(queries) == sorted(row.query for row in [*rows[:3], *rows[6:9]])
    for query, masked in zip(queries, inputs.false_negatives.tolist()):
        index = next(i for i, row in enumerate(rows) if row.query == query)
        own = 0 if index < 3 else 1
        assert not masked[1 - own]
        text = tokenized.documents.texts[tokenized.positive_numbers[index]]
        assert masked[own] == (rows[index].positive_document != text)
    assert tokenized.documents.texts[0] == longest


def test_examples_share_no_text_unless_they_are_told_to(encoder):
    rows = passage_examples()[:6]
    tokenized = tokenize_examples(rows, encoder)
    assert [tokenized.documents.texts[i] for i in tokenized.positive_numbers] == [row.positive_document for row in rows]
    assert not any(example.siblings or example.copied for example in tokenized)
