"""The teacher of whole batches, and the terms that a training with it needs."""

import numpy as np

from utils.records import TrainingExample
from utils.training import distillation
from utils.training.distillation import BatchTeacher
from utils.training.tokenization import tokenize_examples

EXAMPLES = [
    TrainingExample(query="bleed the brakes", positive_document="Open the valve at the rear left wheel first."),
    TrainingExample(
        query="cabin gets hot", positive_document="The heater needs two minutes.", negative_documents=["Oil."]
    ),
]


def test_terms_are_those_that_texts_hold_or_the_model_gives_them(tiny, monkeypatch):
    monkeypatch.setattr(distillation, "BLOCK_IDS", 3)
    examples = tokenize_examples(EXAMPLES, tiny)
    texts = examples.queries.texts, examples.documents.texts
    terms = BatchTeacher(["bm25"], tiny, *texts).terms(examples).tolist()
    held = {token for part in texts for text in part for token in tiny.tokenizer(text)["input_ids"]}
    given = {term for part in texts for text in part for term in tiny.encode([text])[0].indices.tolist()}
    assert given - held and held - given
    assert terms == sorted(held | given) and len(terms) < 0.1 * tiny.vocabulary_size


def test_without_the_model_as_a_teacher_there_are_no_terms_to_leave_out(tiny):
    examples = tokenize_examples(EXAMPLES, tiny)
    assert BatchTeacher(["bm25"], None, examples.queries.texts, examples.documents.texts).terms(examples) is None


def test_a_step_of_these_terms_is_that_of_all(tiny):
    examples = tokenize_examples(EXAMPLES, tiny)
    terms = BatchTeacher(["bm25"], tiny, examples.queries.texts, examples.documents.texts).terms(examples)
    texts, _ = tiny.group_by_length([example.documents[0] for example in examples])
    weights = tiny(**texts)
    np.testing.assert_allclose(weights.sum(1).detach(), tiny(**texts, terms=terms).sum(1).detach(), rtol=1e-5)
