"""Requests that wait are answered together, in one thread."""

import threading

import pytest

from utils.serving.batching import BatchWorker, Overloaded


def test_what_waits_is_answered_together_and_what_is_too_much_is_refused():
    begun, go, batches = threading.Event(), threading.Event(), []

    def answer(requests):
        begun.set()
        assert go.wait(60)
        batches.append(list(requests))
        return (ValueError("odd") if request % 2 else request * 10 for request in requests)

    worker = BatchWorker(answer, together=4, capacity=6)
    first = worker.submit(0)
    assert begun.wait(60)
    futures = [worker.submit(number) for number in range(1, 7)]
    with pytest.raises(Overloaded):
        worker.submit(7)
    futures[4].cancel()
    go.set()
    worker.close()
    assert batches == [[0], [1, 2, 3, 4], [6]] and first.result() == 0
    assert [future.result() for future in futures[1::2]] == [20, 40, 60]
    with pytest.raises(ValueError, match="odd"):
        futures[0].result()


def test_a_failure_is_the_answer_of_all_that_were_asked_with_it():
    def answer(requests):
        raise RuntimeError("out of memory")

    worker = BatchWorker(answer, together=2, capacity=2)
    futures = [worker.submit(1), worker.submit(2)]
    worker.close()
    assert all(str(future.exception()) == "out of memory" for future in futures)
