"""Vectors and queries come in, hits go out: scored documents, best first.

Open `passages.py` first: it encodes documents, long ones by their passages, and finds them; beneath it, `index.py` is
the inverted index over sparse vectors. `lexical.py` is BM25, on the terms that `analyzer.py` makes of texts;
`scorers.py` opens BM25 or any model that scores how well a document answers a query, to distill from and to mine hard
negatives with, and `vector_cache.py` keeps dense models' vectors between runs; `synonyms.py` expands queries.
"""
