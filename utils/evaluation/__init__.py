"""Hits and human judgments come in, figures go out: metrics, sparsity, latency.

Open `metrics.py` first: how well a SPLADE model, or BM25, retrieves. `collection.py` reads the test collections that
they are measured on. `runs.py` has what a system finds query by query, `significance.py` how sure the difference of two
systems is. `errors.py` says which queries were lost, `error_causes.py` by which rule it finds why. `report.py` makes a
page of all that, `findings.py` the sentences at its top.
"""
