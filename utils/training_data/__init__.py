"""Passages come in, training examples go out: a query, a document that answers it, and documents that do not.

Open `extractive.py` first: queries cut out of the passages themselves. Queries also come from a language model
(`model_queries.py`, asked through `language_model.py`), a local doc2query model (`seq2seq.py`) and recorded judgments
(`feedback.py`); `bootstrap.py` has the documents written, too. `quality.py` filters examples, `augmentation.py` varies
their queries, `negatives.py` mines hard negatives, and `data_report.py` shows what was made.
"""
