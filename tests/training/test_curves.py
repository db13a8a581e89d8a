"""The picture of a training."""

import pytest
from matplotlib.figure import Figure

from utils.training.curves import save_curves

STEPS = [{"step": n, "loss": 1 / n, "query_terms": 9.0, "doc_terms": 90.0 / n} for n in range(1, 41)]
EPOCHS = [{"step": n, "val_loss": 20.0 / n, "val_nDCG@10": 0.5} for n in (20, 40)]


@pytest.fixture
def figures(monkeypatch):
    save, seen = Figure.savefig, []

    def remember(self, *arguments, **options):
        seen.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return seen


@pytest.mark.parametrize("comparable", [True, False])
def test_losses_share_an_axis_where_they_can_be_compared(tmp_path, figures, comparable):
    save_curves(tmp_path / "a.png", STEPS, EPOCHS, "nDCG@10", comparable)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    loss, metric, terms, *right = figures[0].axes
    owner = loss if comparable else right[0]
    assert [list(line.get_ydata()) for line in owner.lines][-1] == [1.0, 0.5]
    assert len(right) == (not comparable) and list(metric.lines[0].get_ydata()) == [0.5, 0.5]
    assert list(loss.lines[0].get_ydata()) == [record["loss"] for record in STEPS]
    assert [text.get_text() for text in terms.get_legend().get_texts()] == ["documents", "queries"]


def test_without_validation_there_is_no_plot_of_it(tmp_path, figures):
    save_curves(tmp_path / "a.png", STEPS, [{"step": 40, "loss": 0.1}], "nDCG@10", comparable=False)
    assert [axis.get_title() for axis in figures[0].axes] == ["ranking loss", "active terms"]
