"""Sentences, and code in Markdown text by CommonMark's rules for fences."""

import pytest

from utils.documents.formats.markdown import clean_markdown
from utils.documents.segments import code_blocks, fence_code, split_code, split_prose


def code_of(text, strict=False):
    """Return the runs of code of a text."""
    runs = split_code(text, strict)
    assert "".join(run for _, run in runs) == text
    return [run for is_code, run in runs if is_code]


@pytest.mark.parametrize(
    ("text", "code"),
    {
        "on one line": ("```pip install x```\n\n# Usage\n", []),
        "of four backticks": ("````\n```\n# no\n```\n````\n# Usage\n", ["````\n```\n# no\n```\n````\n"]),
        "longer at its end": ("```\n# no\n`````\n# Usage", ["```\n# no\n`````\n"]),
        "that a language follows does not end": ("```\na\n```sh\nb\n```\nc", ["```\na\n```sh\nb\n```\n"]),
        "of tildes": ("~~~ `x`\n```\n# no\n~~~\n# Usage", ["~~~ `x`\n```\n# no\n~~~\n"]),
        "in a list": ("1. Do:\n\n    ```sh\n    # no\n    ```\n\n# Usage", ["    ```sh\n    # no\n    ```\n"]),
        "on a list's marker": ("- ```\n  a\n  ```\n- b", ["- ```\n  a\n  ```\n"]),
        "in a block quote": ("> ```\n> # no\n> ```\nafter", ["> ```\n> # no\n> ```\n"]),
        "that its list ends": ("- ```\n  a\n\n# Usage", ["- ```\n  a\n\n"]),
        "that nothing ends": ("a\n```\n# no", ["```\n# no"]),
        "after another": ("```\na\n```\n```\nb\n```", ["```\na\n```\n", "```\nb\n```"]),
        "cut out of a list": (
            "        ```\n        # no\n        ```\n# Usage",
            ["        ```\n        # no\n        ```\n"],
        ),
        "of two backticks is none": ("``\na\n``", []),
        "of lines by other separators": ("a\u2028b\x0bc\n```\nd\n```\n", ["```\nd\n```\n"]),
    }.values(),
)
def test_a_fence(text, code):
    assert code_of(text) == code


def test_indented_code_and_comments_count_in_whole_files_alone():
    text = "Use:\n\n    # no\n    pip\n\n<!--\n```\n-->\n\n# Usage\n"
    assert code_of(text, strict=True) == ["    # no\n    pip\n"]
    assert [run.partition("\n")[0] for run in code_of(text)] == ["```"]


def test_code_is_fenced_by_more_backticks_than_it_holds():
    for code in ("a", "```\na\n```", "`````"):
        assert code_of(f"{fence_code(code, 'md')}\nafter") == [f"{fence_code(code, 'md')}\n"]


def test_fences_that_open_code_say_where_they_stand():
    text = "> - ````\n>   a\n>   ````\n\n~~~~~~~~~~~~~~~~\nb\n"
    assert [block.fence for block in code_blocks(text)] == ["> ````", "~~~~~~~~~~"]


def test_a_file_keeps_what_follows_its_code():
    text = (
        "```pip install x```\n\n[See](u)\n\n    # a [comment](x)\n    run\n\n<!--\n```\nold\n```\n-->\nUsage\n-----\n"
    )
    assert clean_markdown(text) == "```pip install x```\n\nSee\n\n```\n# a [comment](x)\nrun\n```\n\n\n## Usage"


@pytest.mark.parametrize(
    "sentences",
    [
        ["Check the oil. ", "Is it low? ", "Add some!\n", "- 3.5 liters\n\n", "# End"],
        ["每周检查机油。", "发动机热吗?", "不要打开!", "他说:「好。」", "版本是3.5。", "“是的!”", "走了"],
        ["オイルを確認する。", "「熱いですか?」", "開けないでください。\n", "部品は高い。"],
        ["ตรวจสอบระดับ ", "และห้ามเปิด ", "ราคาแพง 5 บาท"],
        ["तेल की जाँच करें। ", "इंजन गरम है।"],
        ["엔진은 경유를 태웁니다. ", "가격이 비쌉니다."],
    ],
)
def test_sentences(sentences):
    text = "".join(sentences)
    assert [text[piece.start : piece.end] for piece in split_prose(text)] == [part.strip() for part in sentences]
