"""The files of training, validation and test data."""

import json

import pytest

from utils.records import Passage, TrainingExample, corpus_file, write_examples
from utils.training_data.splitting import write_parts

PASSAGES = [Passage(passage_id="a#0", passage="A pump.")]
OWN = {"query": "by hand", "positive_id": "a#0", "positive_document": "A pump."}
GENERATED = OWN | {"source": "a"}


@pytest.mark.parametrize("examples", [None, GENERATED, OWN | {"positive_document": "Another pump."}])
def test_passages_of_an_earlier_run_go_where_no_examples_search_them(tmp_path, examples, capsys):
    file, corpus = write_earlier(tmp_path, examples)
    write_parts({"test": []}, {"test": file}, {"test": PASSAGES})
    assert (
        not corpus.exists() and f"removed     {corpus}: it held the passages of an earlier" in capsys.readouterr().out
    )
    assert file.exists() == (examples is not None and examples != GENERATED)


@pytest.mark.parametrize("lines", ['{"_id": "1", "text": "x"}', '{"passage_id": "1"}\n', "[]", "a list\n"])
def test_a_file_of_anything_else_stays(tmp_path, lines, capsys):
    file, corpus = write_earlier(tmp_path, GENERATED)
    corpus.write_text(lines)
    write_parts({"test": []}, {"test": file}, {"test": PASSAGES})
    assert not file.exists() and corpus.read_text() == lines and str(corpus) not in capsys.readouterr().out


def test_passages_that_examples_by_hand_search_stay(tmp_path, capsys):
    file, corpus = write_earlier(tmp_path, OWN)
    write_parts({"test": []}, {"test": file}, {"test": PASSAGES})
    assert corpus.exists() and f"kept        {file}" in capsys.readouterr().out


def test_a_file_beside_the_training_data_is_none_of_the_outputs(tmp_path):
    file, corpus = write_earlier(tmp_path, GENERATED)
    write_parts({"training": [TrainingExample(**GENERATED)]}, {"training": file}, {})
    assert corpus.exists()


def write_earlier(folder, examples):
    """Write passages and, if there are examples, these; return the files of both."""
    file = folder / "test_data.json"
    write_examples(corpus_file(file), PASSAGES)
    if examples:
        file.write_text(json.dumps([examples]))
    return file, corpus_file(file)
