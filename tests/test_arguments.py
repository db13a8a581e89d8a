"""The scripts' command lines: which arguments they hold, and which of these have no effect."""

import json
import sys

import pytest

from utils.arguments import ScriptParser, auto_or_positive_int, refuse_idle_flags, refuse_overwriting
from utils.records import OUTPUT_FIELDS, REPORT_MARKS


@pytest.fixture
def parser():
    parser = ScriptParser("doc")
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--batch-size", type=auto_or_positive_int, default="auto")
    parser.add_argument("--queries", action="store_true")
    parser.add_argument("--depth", type=int, default=100)
    return parser


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("", set()),
        ("--depth 100 --batch-size auto", {"depth", "batch_size"}),  # the defaults, and yet given
        ("--text a --text b --queries", {"text", "queries"}),
        ("--dep=3", {"depth"}),
    ],
)
def test_what_is_given_is_what_the_command_line_holds(parser, line, given):
    for _ in range(2):  # a parser keeps its defaults
        args = parser.parse_args(line.split())
        assert args.given == given
        assert args.batch_size is None and args.depth == (3 if "=3" in line else 100)
        assert args.text == (["a", "b"] if "text" in given else [])
    assert vars(args).keys() == {"debug", "text", "batch_size", "queries", "depth"}


@pytest.mark.parametrize("line", [["--text", ""], ["--text", "a", "--text", " "]])
def test_an_empty_text_is_no_argument(parser, line, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(line)
    assert end.value.code == 2 and "error: argument --text: must not be empty" in capsys.readouterr().err


def test_a_parser_is_made_after_a_run_in_a_notebook_that_failed(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__spec__", raising=False)
    assert ScriptParser("doc").usage.startswith("python ")


def test_an_output_file_is_none_of_the_inputs(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "docs.json")
    refuse_overwriting(None, "docs.json")
    refuse_overwriting("out.json", "docs.json", None)
    for output in (tmp_path / "docs.json", tmp_path / "link"):
        with pytest.raises(ValueError, match=f"{output}: it is read, too, and would be overwritten; name another"):
            refuse_overwriting(str(output), None, str(tmp_path / "docs.json"))


def test_a_file_in_an_input_folder_is_overwritten_only_if_the_scripts_wrote_it(tmp_path):
    outputs = [json.dumps([dict.fromkeys(sorted(names), "")]) for names in OUTPUT_FIELDS]
    outputs += [json.dumps({"model": "m", "doc_terms": 9.5}), *(f"<head>{mark.decode()}" for mark in REPORT_MARKS), ""]
    for number, text in enumerate(outputs):
        (tmp_path / f"{number}.json").write_text(text)
        refuse_overwriting(str(tmp_path / f"{number}.json"), tmp_path)
    (tmp_path / "faq").mkdir()
    refuse_overwriting(str(tmp_path / "faq" / "new.json"), tmp_path)
    for name, text in (("corpus.jsonl", '{"_id": "1", "text": "the query"}'), ("faq/a.txt", "what is read")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name}: it is read, too, and would be overwritten; name another"):
            refuse_overwriting(str(tmp_path / name), None, tmp_path)


def test_a_flag_without_effect_is_refused_and_a_default_is_not(parser):
    args = parser.parse_args(["--queries", "--batch-size", "auto"])
    refuse_idle_flags(args, [(False, "--mine", "depth"), ("a", "a text", "queries")])
    with pytest.raises(ValueError, match="--batch-size has no effect without --text; leave it out, or add that"):
        refuse_idle_flags(args, [(args.text, "--text", "depth batch_size")])
