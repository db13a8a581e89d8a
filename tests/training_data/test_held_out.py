"""Validation and test data: queries that stand nowhere in the one collection that they search."""

import time

import pytest
from conftest import fails_with_one_line, run

from utils.documents.families import Families
from utils.documents.normalization import split_words
from utils.records import Chunk, TrainingExample, corpus_file, read_examples, read_passages
from utils.training_data import held_out

SCRIPT = "generate_training_data.py"
SENTENCE = "The pump moves water uphill."
REST = "A filter holds back all of the sand."


def families(*texts, copy_of=None, **fields):
    chunks = [Chunk(id=f"d{i}#0", document_id=f"d{i}", text=text, **fields) for i, text in enumerate(texts)]
    return Families(chunks, copy_of or {}, {}, {}, {})


def hold_out(examples, families):
    return held_out.hold_out(examples, families, seed=42)


def example(query, kind="sentence", passage="d0#0", **fields):
    return TrainingExample(query=query, positive_document="its own", positive_id=passage, query_type=kind, **fields)


def texts(pool):
    return {passage.passage_id: passage.passage for passage in pool}


def has_run(query, text):
    return f" {' '.join(split_words(query))} " in f" {' '.join(split_words(text))} "


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{REST} {SENTENCE} The end.", f"{REST} The end."),
        (f"{REST} the pump moves water uphill . the end .", f"{REST} the end ."),
        (f"{REST}\n\nthe  PUMP\nmoves water: uphill!\n\nThe end.", f"{REST}\n\nThe end."),
        (f"{REST}\n- **The pump** `moves` water uphill.\n- The end.", f"{REST}\n\n- The end."),
        (f"{REST} It says (the pump moves water uphill), and ends.", f"{REST} It says and ends."),
        (f"## The pump moves water uphill\n\n{REST}", REST),
        (f"{REST} The pump moves The pump moves water uphill. water uphill.", REST),
        (f"{REST} The pumps move water uphill.", f"{REST} The pumps move water uphill."),
    ],
)
def test_a_query_is_cut_wherever_its_words_stand_in_a_row(text, left):
    kept, pool, _ = hold_out([example(SENTENCE)], families(f"{SENTENCE} {REST}", text))
    assert texts(pool) == {"d0#0": REST, "d1#0": left}
    assert [(e.positive_id, e.positive_document) for e in kept] == [("d0#0", REST)]


def test_a_number_that_begins_a_line_may_be_a_word_of_its_sentence():
    query = "the 3. valve opens first"
    text = f"{REST} Then the\n3. valve opens first, and so on."
    _, pool, _ = hold_out([example(query)], families(f"{query}. {REST}", text))
    assert texts(pool) == {"d0#0": REST, "d1#0": f"{REST} Then and so on."}


def test_long_rows_of_punctuation_take_no_long():
    """The time of a pattern that is tried at each character of a row grows with its square: half a minute here."""
    row = "-" * 40_000
    started = time.perf_counter()
    _, pool, _ = hold_out([example(SENTENCE)], families(f"{SENTENCE} {REST}", f"{REST} {row} {SENTENCE}"))
    assert texts(pool)["d1#0"] == f"{REST} {row}" and time.perf_counter() - started < 5


def test_a_part_of_a_query_is_cut_as_where_a_passage_begins_within_it():
    query = "In the dry season the pump moves river water uphill to the tank."
    others = f"the pump moves river water uphill to the tank. {REST}", f"River water goes uphill to the tank. {REST}"
    _, pool, _ = hold_out([example(query)], families(f"{query} {REST} {REST}", *others))
    assert texts(pool) == {"d0#0": f"{REST} {REST}", "d1#0": REST, "d2#0": others[1]}


def test_queries_that_overlap_are_cut_together_and_share_one_positive():
    parts = [f"Sentence number {i} is about the part {i * i}." for i in range(9)]
    queries = [parts[1], " ".join(parts[1:3]), " ".join(parts[2:4])]
    kept, pool, _ = hold_out([example(query) for query in queries], families(" ".join(parts)))
    assert texts(pool) == {"d0#0": " ".join([parts[0], *parts[4:]])}
    assert {e.positive_document for e in kept} == set(texts(pool).values())


def test_scripts_without_spaces_are_cut_by_their_characters():
    text = "每周检查机油。发动机热的时候不要打开散热器。备件可以在大城市买到。"
    other = "请注意:发动机热的时候不要打开散热器!请记录在本子上"
    _, pool, _ = hold_out([example("发动机热的时候不要打开散热器。")], families(text, other))
    assert texts(pool) == {"d0#0": "每周检查机油。 备件可以在大城市买到。", "d1#0": "请注意: 请记录在本子上"}


def test_a_title_is_cut_out_of_headings_and_sentences_and_a_short_one_is_no_test_query():
    title = "Care of the pump"
    terms = "Pump", "Water pump", "1. Water pump"
    made = [example(title, "title"), example("pump sand water", "keywords")]
    made += [example(term, "title") for term in terms]
    collection = families(f"## Care of the pump\n\n{REST} {REST}", f"See care of the pump. {REST}", title=title)
    kept, pool, rejected = hold_out(made, collection)
    assert [e.query for e in kept] == [title] and {r.text for r in rejected} == {"pump sand water", *terms}
    assert texts(pool) == {"d0#0": f"{REST} {REST}", "d1#0": f"See {REST}"}


def test_queries_leave_their_passage_half_of_its_words():
    parts = [f"Sentence {i} has its six words." for i in range(4)]
    made = [example(part) for part in parts]
    kept, pool, rejected = hold_out(made, families(" ".join(parts)))
    assert len(kept) == 2 and {e.query for e in kept} | {r.text for r in rejected} == set(parts)
    assert texts(pool) == {"d0#0": " ".join(part for part in parts if part not in {e.query for e in kept})}
    chosen = {tuple(e.query for e in held_out.hold_out(made, families(" ".join(parts)), seed)[0]) for seed in range(9)}
    assert len(chosen) > 1


def test_a_passage_that_other_queries_use_up_goes_with_its_own_and_a_short_one_stays():
    made = [example(SENTENCE), example("Four words are left.", passage="d1#0")]
    kept, pool, rejected = hold_out(made, families(f"{SENTENCE} {REST}", f"{SENTENCE} Four words are left.", "Short."))
    assert texts(pool) == {"d0#0": REST, "d2#0": "Short."}
    assert [e.query for e in kept] == [SENTENCE] and [r.text for r in rejected] == ["Four words are left."]


def test_nothing_is_cut_for_queries_that_a_model_or_a_person_wrote():
    text, other = f"{SENTENCE} {REST}", "A liked page that is no passage."
    made = [
        example("water uphill with a pump", "question", negative_documents=["not an answer"]),
        example("the pump moves water uphill", "feedback", "copy#0", negative_documents=[text, REST]),
        TrainingExample(query="liked page", positive_document=other, query_type="feedback"),
    ]
    kept, pool, _ = hold_out(made, families(text, copy_of={"copy#0": "d0#0"}))
    assert texts(pool) == {"d0#0": text, None: other}
    assert [(e.positive_id, e.positive_document) for e in kept] == [("d0#0", text), ("d0#0", text), (None, other)]
    assert [e.negatives for e in kept] == [["not an answer"], [REST], []]  # the positive is no negative of its own


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Test data of twelve documents that quote one another and are cut into passages that overlap; what was said."""
    home = tmp_path_factory.mktemp("made")
    (home / "docs").mkdir()
    for i in range(12):
        sentences = [f"In part {i} the wheel {i * k} of engine {k} turns {i + k} times." for k in range(60)]
        j = (i + 1) % 12
        quotes = [f"In PART {j} the\nwheel {j * k} of *engine* {k} turns {j + k} times!" for k in (7, 8)]
        (home / "docs" / f"{i}.md").write_text(f"# How part {i} works\n\n{' '.join([*sentences, *quotes])}")
    return home, generate(home, home / "training_data.json", 42)


def generate(home, output, seed):
    done = run(SCRIPT, "--input-dir", home / "docs", "--output-file", output, "--split", "60/20/20", "--seed", seed)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_query_is_in_the_collection_which_has_every_passage_once(made):
    home, said = made
    whole = int(said.split("passages    ")[1].split(";")[0])
    for part in ("validation", "test"):
        file = home / f"{part}_data.json"
        examples = read_examples(file)
        passages = read_passages(file, examples)
        names = [passage.passage_id for passage in passages]
        assert len(names) == len(set(names)) == whole >= 24 and f"{whole} in {corpus_file(file).name}" in said
        assert {name.partition("#")[0] for name in names} == {f"{i}.md" for i in range(12)}
        assert len(examples) > 8 and {e.query_type for e in examples} == {"title", "sentence", "passage"}
        for e in examples:
            assert texts(passages)[e.positive_id] == e.positive_document
            assert not any(has_run(e.query, passage.passage) for passage in passages)


def test_the_collection_beside_a_file_is_searched_and_no_other(made, tmp_path):
    home, _ = made
    generate(home, tmp_path / "training_data.json", 7)
    measure = "test_evaluate.py", "--model-dir", "splade-tiny", "--metrics", "R@100"
    file = tmp_path / "test_data.json"
    corpus = corpus_file(file)
    done = run(*measure, "--test-file", file)
    assert f"{len(corpus.read_text().splitlines())} documents, " in done.stdout
    done = run(*measure, "--test-file", file, "--docs-file", home / "docs")
    fails_with_one_line(done, f"{corpus}: holds the documents that these queries search; leave out --docs-file")
    done = run(*measure, "--test-file", file, "--output-file", corpus)
    fails_with_one_line(done, f"{corpus}: it is read, too")
    corpus.write_bytes(corpus_file(home / "test_data.json").read_bytes())
    stale = f"{corpus}: is not of the same run as {file}: it lacks the positive document of '"
    fails_with_one_line(run(*measure, "--test-file", file), stale, "add it here as a line", "remove this file")
    train = "train_splade.py", "--train-file", tmp_path / "training_data.json", "--val-file", file
    fails_with_one_line(run(*train, "--model-name", "splade-tiny", "--output-dir", tmp_path / "model"), stale)
    corpus.write_text('{"passage": "of no name"}')
    missing = f"{corpus}: line 1: field 'passage_id': Field required; by its name beside {file} "
    fails_with_one_line(run(*measure, "--test-file", file), missing, "rename it")
    corpus.unlink()
    positives = {e.positive_document for e in read_examples(file)}
    assert f"{len(positives)} documents, " in run(*measure, "--test-file", file).stdout
