"""Hits and human judgments come in, figures go out: metrics, sparsity, latency.

Open `metrics.py` first: how well a SPLADE model, or BM25, retrieves. `collection.py` reads the test
collections that they are measured on.
"""
