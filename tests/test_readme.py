"""The README's first snippet runs as written and prints what its comments say."""

import contextlib
import io
import re

import pytest
from conftest import ROOT


def test_the_first_snippet_prints_what_its_comments_say():
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    expected = [line.removeprefix("# ") for line in snippet.splitlines() if line.startswith("# ")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet, {})
    assert len(expected) == 2
    for line, said in zip(printed.getvalue().splitlines(), expected, strict=True):
        (rank, score, rest), (said_rank, said_score, said_rest) = line.split(" ", 2), said.split(" ", 2)
        # Processors round documents differently (bfloat16 where it is fast).
        assert (rank, rest) == (said_rank, said_rest) and float(score) == pytest.approx(float(said_score), abs=0.15)
