"""Requests that wait are worked on together, by one thread."""

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Request, Answer = TypeVar("Request"), TypeVar("Answer")


class Overloaded(Exception):
    """As many requests wait as may."""


class BatchWorker(Generic[Request, Answer]):
    """A thread that takes all requests which wait, up to a number, and answers them together.

    Args:
        answer: yields the answer of each request, in order, or the exception that it ended with.
        together: most requests at a time.
        capacity: most requests that wait.
    """

    def __init__(
        self, answer: Callable[[Sequence[Request]], Iterable[Answer | Exception]], together: int, capacity: int
    ) -> None:
        self._answer, self._together = answer, together
        self._waiting: queue.Queue[tuple[Request, Future] | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name="search", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> "Future[Answer]":
        """Return what will be the answer.

        Raises:
            Overloaded: too many requests wait.
        """
        future: Future[Answer] = Future()
        try:
            self._waiting.put_nowait((request, future))
        except queue.Full:
            raise Overloaded from None
        return future

    def close(self) -> None:
        """Answer what waits, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            taken = [self._waiting.get()]
            while len(taken) < self._together and not self._waiting.empty():
                taken.append(self._waiting.get())
            closing = None in taken
            batch = [entry for entry in taken if entry and entry[1].set_running_or_notify_cancel()]
            if batch:
                self._answer_batch([request for request, _ in batch], [future for _, future in batch])

    def _answer_batch(self, requests: Sequence[Request], futures: Sequence[Future]) -> None:
        try:
            for future, answer in zip(futures, self._answer(requests)):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
