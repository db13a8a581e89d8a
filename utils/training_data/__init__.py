"""Passages come in, training examples go out: a query, a document that answers it, and documents that do not.

Open `extractive.py` first, which cuts queries out of the passages themselves. Queries also come from a language model
(`model_queries.py`, through the client in `language_model.py`, whose replies `chat_replies.py` reads), a local
doc2query model (`seq2seq.py`) and recorded relevance judgments (`feedback.py`); `seed_queries.py` finds the passages
near queries that fail, and `bootstrap.py` generates the documents, too. `passages.py` cuts and groups them.
`quality.py` filters examples, `splitting.py` splits them by document, `held_out.py` makes the collection that
validation and test queries search, `augmentation.py` adds variants of training
queries, `negatives_bm25.py` and `negatives_mined.py` mine hard negatives; `summary.py` and `data_report.py` show what
was made, `costs.py` what a language model's work costs; `plan.py` checks the arguments for all this.
"""
