"""Tests of one model used by several threads at a time."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from utils.splade.encoder import SpladeEncoder

DOCUMENTS = ["engine " * n for n in (200, 7, 140, 1)]
QUERIES = ["how does a jet engine work", "wing " * 200, "boundary layer"]


@pytest.fixture
def two_cores():
    """Compute on two threads, and switch between Python's threads as often as can be."""
    interval, count = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-5)  # seconds
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(count)
    sys.setswitchinterval(interval)


def run_together(*jobs) -> list:
    """Run each job in a thread of its own, all at once; return their results."""
    start = threading.Barrier(len(jobs))
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(lambda job=job: (start.wait(), job())[1]) for job in jobs]]


def test_texts_of_all_threads_are_cut_at_their_own_limit(tiny, two_cores):
    documents, queries = tiny.tokenize(DOCUMENTS), tiny.tokenize_queries(QUERIES)
    assert max(map(len, documents)) == 202 and max(map(len, queries)) == tiny.query_max_length

    def count_right_documents():
        return sum(tiny.tokenize(DOCUMENTS) == documents for _ in range(100))

    def count_right_queries():
        return sum(tiny.tokenize_queries(QUERIES) == queries for _ in range(100))

    assert run_together(*[count_right_documents, count_right_queries] * 4) == [100] * 8


def test_each_thread_counts_the_texts_that_it_had_cut(tiny, two_cores):
    long = "engine " * 600
    assert max(len(ids) for ids in tiny.tokenize([long])) == tiny.max_length

    def count_truncated(texts):
        counts = []
        for _ in range(5):
            tiny.encode(texts)
            counts.append(tiny.truncated)
        return counts

    jobs = [lambda n=n: count_truncated([long] * n + ["wing"]) for n in range(4)]
    assert run_together(*jobs) == [[n] * 5 for n in range(4)]


def test_vectors_of_threads_are_those_of_one_thread(two_cores):
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="float32", threads=2)

    def encode_documents_first():
        return encoder.encode(DOCUMENTS) + [encoder.encode_query(query) for query in QUERIES]

    def encode_queries_first():
        queries = [encoder.encode_query(query) for query in QUERIES]
        return encoder.encode(DOCUMENTS) + queries

    together = run_together(*[encode_documents_first, encode_queries_first] * 4)
    alone = encode_documents_first()
    for vectors in together:
        for vector, expected in zip(vectors, alone, strict=True):
            assert np.array_equal(vector.indices, expected.indices) and np.array_equal(vector.values, expected.values)


def test_a_thread_that_begins_while_texts_are_encoded_has_all_cores(tiny, two_cores):
    tiny.encode(["engine", "wing"], batch_size=1)  # its threads have begun
    encoding = threading.Thread(target=lambda: tiny.encode(["engine " * 100] * 16, batch_size=1))
    encoding.start()
    counts = []
    while encoding.is_alive():
        thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    assert set(counts) == {2}
