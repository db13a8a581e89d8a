"""Batched encoding of a stream of texts in constant memory, with batch sizes that suit the device."""

import functools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch
from tqdm import tqdm

from utils.arguments import check_positive
from utils.console import progress_bar
from utils.device import is_out_of_memory
from utils.splade.tokenization import check_texts
from utils.splade.vectors import EMPTY_VECTOR, SparseVector, join_memory

SORT_WINDOW = 2048  # texts tokenized and sorted by length together; more means less padding, and more memory
CPU_BATCH_TOKENS = 2048  # most tokens in a batch on the CPU, padding included
ACCELERATOR_BATCH_TOKENS = 65_536  # most tokens in a batch on CUDA and MPS, padding included
BATCH_TEXTS = 1024  # most texts in a batch; each has a row with weights of the whole vocabulary on accelerators
CUDA_STREAMS = 2  # batches at once on CUDA, so that one is computed while the results of another are fetched
MIN_BATCH_TOKENS = 512  # tokens; the CPU's budget is not lowered below this to give every thread enough batches
BATCHES_PER_THREAD = 4  # batches of a window per CPU thread aimed for, so that threads finish at about the same time


class BatchEncoder:
    """Batch encoder that halves a batch which does not fit into memory.

    Args:
        encode: maps the token ids of a batch of texts to their vectors.

    Attributes:
        token_budget: by device type, the most tokens in a batch, padding included.
        cuda_streams: batches at once on CUDA, each on a stream of torch; 1 where another library computes.
    """

    def __init__(self, encode: Callable[[list[list[int]]], list[SparseVector]]) -> None:
        self._encode = encode
        self.cuda_streams = CUDA_STREAMS
        self.token_budget = {
            "cpu": CPU_BATCH_TOKENS,
            "cuda": ACCELERATOR_BATCH_TOKENS,
            "mps": ACCELERATOR_BATCH_TOKENS,
        }

    def encode_stream(
        self,
        texts: Iterable[str],
        tokenize: Callable[[Sequence[str]], list[list[int]]],
        device: torch.device,
        batch_size: int | None,
        show_progress: bool,
        window: int | None = None,
        progress: tqdm | None = None,
    ) -> Iterator[SparseVector]:
        """Yield the vectors of `texts` in input order; a text without tokens has an empty one.

        Texts are read in windows of SORT_WINDOW, or of `window`; the next one is tokenized while the current one is
        encoded. `progress` is a bar that is advanced in place of an own one.

        Raises:
            ValueError: `batch_size` is not at least 1.
            TypeError: see `check_texts`.
        """
        check_positive(batch_size=batch_size)
        total = len(texts) if isinstance(texts, Sized) else None
        texts = check_texts(texts, "texts")
        window = window or SORT_WINDOW
        with (
            progress_bar(total=total, desc="encoding", unit="texts", show=show_progress) as bar,
            ThreadPoolExecutor(1) as pool,
        ):
            next_window = pool.submit(tokenize, list(islice(texts, window)))
            while tokens := next_window.result():
                next_window = pool.submit(tokenize, list(islice(texts, window)))
                yield from self._encode_window(tokens, device, batch_size, bar if progress is None else progress)

    def encode_batch(self, tokens: list[list[int]], device: torch.device) -> list[SparseVector]:
        """Encode one batch, halved as often as needed to fit into memory.

        Raises:
            RuntimeError: a single text does not fit.
        """
        try:
            return self._encode(tokens)
        except RuntimeError as error:
            if len(tokens) == 1 or not is_out_of_memory(error):
                raise
        self.token_budget[device.type] = max(1, self.token_budget[device.type] // 2)  # for later windows
        half = len(tokens) // 2
        return self.encode_batch(tokens[:half], device) + self.encode_batch(tokens[half:], device)

    def _encode_window(
        self, tokens: list[list[int]], device: torch.device, batch_size: int | None, bar: tqdm
    ) -> list[SparseVector]:
        vectors = [EMPTY_VECTOR] * len(tokens)
        # Longest first, so that a batch that does not fit into memory is met at once.
        order = sorted((i for i, ids in enumerate(tokens) if ids), key=lambda i: -len(tokens[i]))
        bar.update(len(tokens) - len(order))
        budget = self.token_budget[device.type]
        most = batch_size or BATCH_TEXTS
        if batch_size:
            budget = sys.maxsize
        elif device.type == "cpu":
            share = sum(map(len, tokens)) // (BATCHES_PER_THREAD * torch.get_num_threads())
            budget = min(budget, max(MIN_BATCH_TOKENS, share))
        batches: list[list[int]] = []
        for i in order:
            size = len(batches[-1]) if batches else 0
            if 0 < size < most and (size + 1) * len(tokens[batches[-1][0]]) <= budget:
                batches[-1].append(i)
            else:
                batches.append([i])
        encoded = self._encode_batches([[tokens[i] for i in batch] for batch in batches], device)
        for batch, batch_vectors in zip(batches, encoded):
            for i, vector in zip(batch, batch_vectors):
                vectors[i] = vector
            bar.update(len(batch))
        return join_memory(vectors)

    def _encode_batches(self, batches: list[list[list[int]]], device: torch.device) -> Iterator[list[SparseVector]]:
        """Yield the vectors of each batch. On the CPU every thread encodes a batch of its own, which scales better than
        splitting each small matrix product between threads; on CUDA every stream does."""
        workers = {"cpu": torch.get_num_threads(), "cuda": self.cuda_streams}.get(device.type, 1)
        if workers == 1 or len(batches) == 1:
            for batch in batches:
                yield self.encode_batch(batch, device)
            return
        if device.type == "cuda":
            pool = _stream_workers(workers, os.getpid(), device)
            caller = torch.cuda.current_stream(device)

            def encode(batch: list[list[int]]) -> list[SparseVector]:
                torch.cuda.current_stream().wait_stream(caller)  # which may still be changing the weights
                return self.encode_batch(batch, device)

        else:
            pool, encode = _workers(workers, os.getpid()), lambda batch: self.encode_batch(batch, device)
        running: deque[Future] = deque()  # few of a call's batches, so that calls of several threads take turns
        for batch in batches:
            running.append(pool.submit(encode, batch))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


@functools.lru_cache(maxsize=1)
def _workers(count: int, process: int) -> ThreadPoolExecutor:
    """Return `count` threads that compute on one processor thread each; a forked process needs its own.

    They are kept, because torch.set_num_threads also sets what threads that begin later compute on: it is 1 only until
    all workers have begun.
    """
    begun = threading.Barrier(count + 1)
    pool = ThreadPoolExecutor(count, "encode", torch.set_num_threads, (1,))
    for _ in range(count):
        pool.submit(begun.wait)
    begun.wait()
    torch.set_num_threads(count)
    return pool


@functools.cache
def _stream_workers(count: int, process: int, device: torch.device) -> ThreadPoolExecutor:
    """Return `count` threads that each launch on a stream of their own; they are kept, because libraries keep memory
    for each stream."""

    def begin() -> None:
        torch.cuda.set_device(device)
        torch.cuda.set_stream(torch.cuda.Stream(device))

    return ThreadPoolExecutor(count, "encode", begin)
