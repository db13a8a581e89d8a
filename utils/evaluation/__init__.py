"""Hits and human judgments come in, figures go out: metrics, sparsity, latency, and what to do next.

Open `systems.py` first: what a search, BM25 or another system's run finds, how good it is (`metrics.py`) and what it
costs. `reading.py` reads the test collections (`collection.py`) that they are measured on, `trec.py` TREC's files.
`results.py` has several systems side by side: `comparison.py` says which is better and `significance.py` how sure that
is, `groups.py` on which queries. `errors.py` says which queries were lost, `error_causes.py` by which rule it finds
why. `report.py` makes a page of all that, `answers.py` the sentences at its top. `drift.py` compares what came since
with what a model was trained on, by the signals of `shift.py`. `runs.py` has what training and benchmarks need of runs.
"""
