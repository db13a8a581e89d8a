"""Which examples a training takes."""

from utils.records import TrainingExample
from utils.training.examples import sample_passages


def test_some_passages_are_drawn_with_all_their_examples(capsys):
    examples = [
        TrainingExample(query=f"q{i}", positive_document=f"cut {i}", positive_id=f"p{i // 3}") for i in range(30)
    ]
    chosen = sample_passages(examples, 4, 42, "training")
    assert len(chosen) == 12 and len({example.positive_id for example in chosen}) == 4
    assert chosen == [example for example in examples if example in chosen]
    assert capsys.readouterr().out == "training on 12 examples, of 4 passages of 10\n"
    assert chosen == sample_passages(examples, 4, 42, "training") != sample_passages(examples, 4, 1, "training")


def test_examples_of_few_passages_are_all_taken(capsys):
    examples = [TrainingExample(query=f"q{i}", positive_document=f"document {i % 4}") for i in range(8)]
    assert sample_passages(examples, 4, 42, "training") is examples and not capsys.readouterr().out
    assert len(sample_passages(examples, 3, 42, "training")) == 6
