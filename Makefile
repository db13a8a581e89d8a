PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --quiet
DEMO := build/demo

.PHONY: demo test test-slow lint install clean

# The whole way on Python's own documentation: documents -> training data -> tuned model -> metrics -> search.
demo: install
	$(PY) examples/python_docs.py --output-dir $(DEMO)/python_docs
	$(PY) generate_training_data.py --input-dir $(DEMO)/python_docs --output-file $(DEMO)/training_data.json --generator extractive --round-trip 20
	$(PY) train_splade.py --model-name splade-tiny --train-file $(DEMO)/training_data.json --output-dir $(DEMO)/fine_tuned_splade
	$(PY) test_evaluate.py --model-dir $(DEMO)/fine_tuned_splade --test-file examples/python_questions --docs-file $(DEMO)/python_docs --baseline bm25 --compare splade-tiny --metrics nDCG@10 RR@10 R@100
	$(PY) test_queries.py --model-dir $(DEMO)/fine_tuned_splade --docs-file $(DEMO)/python_docs --query "value in the middle of sorted data" --top-k 3

# A process a core, each on one thread.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test: .venv/test-installed
	$(PYTEST) -m "not slow"

test-slow: .venv/test-installed
	$(PYTEST) -m slow

lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

install: .venv/installed

.venv/installed: requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements-dev.txt -c constraints.txt
	$(PY) -m utils.splade.kernels
	touch $@

.venv/test-installed: .venv/installed tests/requirements.txt
	$(PIP) -r tests/requirements.txt -c constraints.txt
	touch $@

clean:
	rm -rf build .venv utils/splade/cpp/built
