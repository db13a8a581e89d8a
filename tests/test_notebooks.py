"""The notebooks in examples/ run from the first cell to the last, and hold the output of such a run."""

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

EXAMPLES = ROOT / "examples"


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def is_picture(output):
    return "image/png" in output.get("data", {})


@pytest.mark.parametrize("name", [pytest.param("documents_to_model", marks=pytest.mark.slow), "encode_and_search"])
def test_a_notebook_runs_and_prints_nothing_that_a_cell_would_not_want(name):
    stored = nbformat.read(EXAMPLES / f"{name}.ipynb", 4)
    notebook = nbformat.from_dict({**stored, "cells": [{**cell} for cell in stored.cells]})
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    for each in (stored, notebook):
        numbers = [cell.execution_count for cell in each.cells if cell.cell_type == "code"]
        assert numbers == list(range(1, len(numbers) + 1))
        assert {output.output_type for output in outputs(each)} <= {"stream", "display_data", "execute_result"}
        assert not [output.text for output in outputs(each) if output.get("name") == "stderr"]
    assert sum(map(is_picture, outputs(notebook))) == sum(map(is_picture, outputs(stored))) >= 2
