"""A stream of texts of any length through a model, in batches that suit the device and in constant memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch
from tqdm import tqdm

from utils.console import progress_bar
from utils.splade.vectors import EMPTY_VECTOR, SparseVector

SORT_WINDOW = 2048  # texts tokenized and sorted by length together
CPU_BATCH_TOKENS = 2048  # tokens in a batch, padding included
ACCELERATOR_BATCH_TOKENS = 65_536  # the same on CUDA and MPS
MIN_BATCH_TOKENS = 512  # that a batch is not made smaller than for the sake of more threads
BATCHES_PER_THREAD = 4  # of a window, at least, so that no thread waits long for the last batch of another one


class BatchEncoder:
    """Encodes texts in batches, and halves a batch that does not fit the memory.

    Args:
        encode: token ids of a batch of texts -> their vectors.

    Attributes:
        token_budget: by type of device, the tokens of a batch at most, padding included.
    """

    def __init__(self, encode: Callable[[list[list[int]]], list[SparseVector]]) -> None:
        self._encode = encode
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
    ) -> Iterator[SparseVector]:
        """Yield the vectors of `texts` in their order; a text without tokens has an empty one.

        SORT_WINDOW texts are held at a time, and the next ones are tokenized while these are encoded.
        """
        total = len(texts) if isinstance(texts, Sized) else None
        texts = iter(texts)
        with (
            progress_bar(total=total, desc="encoding", unit="texts", show=show_progress) as bar,
            ThreadPoolExecutor(1) as pool,
        ):
            coming = pool.submit(tokenize, list(islice(texts, SORT_WINDOW)))
            while tokens := coming.result():
                coming = pool.submit(tokenize, list(islice(texts, SORT_WINDOW)))
                yield from self._encode_window(tokens, device, batch_size, bar)

    def encode_batch(self, tokens: list[list[int]], device: torch.device) -> list[SparseVector]:
        """Encode one batch, in halves where it does not fit the memory.

        Raises:
            torch.OutOfMemoryError: one text alone does not fit.
        """
        try:
            return self._encode(tokens)
        except torch.OutOfMemoryError:
            if len(tokens) == 1:
                raise
        self.token_budget[device.type] = max(1, self.token_budget[device.type] // 2)  # for the windows to come
        half = len(tokens) // 2
        return self.encode_batch(tokens[:half], device) + self.encode_batch(tokens[half:], device)

    def _encode_window(
        self, tokens: list[list[int]], device: torch.device, batch_size: int | None, bar: tqdm
    ) -> list[SparseVector]:
        vectors = [EMPTY_VECTOR] * len(tokens)
        # Longest first, so that a batch that does not fit the memory comes at once.
        order = sorted((i for i, ids in enumerate(tokens) if ids), key=lambda i: -len(tokens[i]))
        bar.update(len(tokens) - len(order))
        budget = self.token_budget[device.type]
        if device.type == "cpu":
            share = sum(map(len, tokens)) // (BATCHES_PER_THREAD * torch.get_num_threads())
            budget = min(budget, max(MIN_BATCH_TOKENS, share))
        batches: list[list[int]] = []
        for i in order:
            size = len(batches[-1]) if batches else 0
            if size and (size < batch_size if batch_size else (size + 1) * len(tokens[batches[-1][0]]) <= budget):
                batches[-1].append(i)
            else:
                batches.append([i])
        encoded = self._encode_batches([[tokens[i] for i in batch] for batch in batches], device)
        for batch, batch_vectors in zip(batches, encoded):
            for i, vector in zip(batch, batch_vectors):
                vectors[i] = vector
            bar.update(len(batch))
        return vectors

    def _encode_batches(self, batches: list[list[list[int]]], device: torch.device) -> Iterator[list[SparseVector]]:
        """Encode a batch a thread on the CPU, which scales better than threads within each of its small products."""
        threads = torch.get_num_threads()
        if device.type != "cpu" or threads == 1 or len(batches) == 1:
            for batch in batches:
                yield self.encode_batch(batch, device)
            return
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield from pool.map(lambda batch: self.encode_batch(batch, device), batches)
        finally:
            torch.set_num_threads(threads)
