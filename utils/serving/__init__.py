"""Requests come in over HTTP, hits and vectors go out: the page and the API that --serve opens.

Open `service.py` first: its endpoints, and what they answer with. `answers.py` searches for several requests at a time,
which `batching.py` brings together; `gate.py` refuses what is not to come in; `variants.py` assigns sessions to one of
two models and counts what people say of their hits; `metrics.py` counts for Prometheus, `server.py` is the socket and
the end of it, and page.html the page.
"""
