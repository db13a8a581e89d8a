"""Training examples from passages: a query, a document that answers it, and hard negatives that do not.

Start with `extractive.py`, which cuts queries out of the passages themselves. Queries also come from a language model
(`model_queries.py`, through the client in `language_model.py`), a local doc2query model (`seq2seq.py`) and recorded
relevance judgments (`feedback.py`); `bootstrap.py` generates the documents, too. `quality.py` filters examples,
`augmentation.py` adds variants of their queries, `negatives_bm25.py` and `negatives_mined.py` mine hard negatives, and
`data_report.py` renders a page to inspect the result.
"""
