"""Documents and their vectors come in; what a search engine loads, and the queries that it answers, go out.

Open `registry.py` first: the engines by name. `base.py` says what each of them gives; `terms.py` names the terms where
an engine wants words, `lucene.py` is what those on Lucene share. `opensearch.py`, `elasticsearch.py`, `vespa.py`,
`milvus.py`, `qdrant.py` and `anserini.py` have the formats. How each is loaded is in docs/deploy.
"""
