"""Vectors come in, hits go out: scored documents, best first.

Open `index.py` first: the inverted index over sparse vectors. `lexical.py` is BM25; `scorers.py` opens any model that
scores how well a document answers a query, to train by and to mine negatives with; `synonyms.py` expands queries.
"""
