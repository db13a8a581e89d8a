"""Small batches on CUDA, each as one CUDA graph.

A GPU computes a short query in less time than Python takes to launch the kernels of its layers one by one. A CUDA graph
launches all of them at once. A graph is captured for one shape, so texts are padded to powers of 2, in number and in
tokens as far as the model has positions, and a shape is captured when it is first met.
"""

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch

from utils.device import is_out_of_memory

MOST_TOKENS = 1024  # of a batch, padding included; with more, kernels may take longer than their launches
SHORTEST = 16  # tokens that texts are padded to at least
WARM_UPS = 3  # runs before the capture, in which libraries choose kernels and models make what they keep

_CAPTURE_LOCK = threading.Lock()  # a capture begins with waiting for the device, which would break another encoder's

Result = TypeVar("Result")


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    texts: torch.Tensor  # [batch, tokens + 1] ids and, last, the number of tokens of each text; what it reads
    weights: torch.Tensor  # [batch, vocabulary], what it writes


class BatchGraphs:
    """CUDA graphs of an encoder, by the shape of a batch. They read the weights where these were at the capture, so
    they follow changes in place.

    Args:
        weigh: maps [batch, tokens] ids and [batch] lengths to [batch, vocabulary] term weights, without waiting for
            the device.
        filler: id of a token that is padded with.
        limit: most tokens of a text, which the model has positions for.
    """

    def __init__(self, weigh: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], filler: int, limit: int) -> None:
        self._weigh, self._filler, self._limit = weigh, filler, limit
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._lock = threading.Lock()  # a graph has one place for its input, and all share memory
        self._works = True
        self._stream: torch.cuda.Stream | None = None

    def shape(self, tokens: Sequence[list[int]]) -> tuple[int, int] | None:
        """Return the numbers of texts and tokens of the graph for a batch; None if it is too large, or graphs do not
        work here."""
        batch, longest = (_power_of_2(count) for count in (len(tokens), max(SHORTEST, *map(len, tokens))))
        longest = min(longest, self._limit)
        return (batch, longest) if self._works and batch * longest <= MOST_TOKENS else None

    def run(
        self, tokens: Sequence[list[int]], device: torch.device, read: Callable[[torch.Tensor], Result]
    ) -> Result | None:
        """Return what `read` makes of a batch's [batch, vocabulary] weights, which are overwritten afterwards; None
        where `shape` is None."""
        shape = self.shape(tokens)
        if not shape:
            return None
        batch, longest = shape
        padded = [[*ids, *[self._filler] * (longest - len(ids)), len(ids)] for ids in tokens]
        padded += [[self._filler] * longest + [1]] * (batch - len(tokens))
        with self._lock, torch.cuda.device(device):
            if shape not in self._graphs:
                try:
                    with _CAPTURE_LOCK:
                        self._graphs[shape] = self._capture(batch, longest, device)
                except (RuntimeError, ValueError) as error:  # a model may wait for the device, or share weights
                    if is_out_of_memory(error):
                        raise
                    self._works = False
                    warnings.warn(f"short queries run without CUDA graphs, and slower: {error}", stacklevel=2)
                    return None
            graph, texts, weights = self._graphs[shape]
            texts.copy_(torch.tensor(padded))
            graph.replay()
            return read(weights[: len(tokens)])

    def _capture(self, batch: int, longest: int, device: torch.device) -> _Graph:
        texts = torch.full((batch, longest + 1), self._filler, device=device)
        texts[:, -1] = 1
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        # One for all captures: cuBLAS keeps memory for each stream, and torch hands out 32 in turn, so that with a new
        # one for each shape another thread's kernels would at last run on it and be captured too.
        stream = self._stream = self._stream or torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # Without the cache, which would free its casts of weights while graphs still read them.
        with torch.autocast("cuda", dtype, enabled, cache_enabled=False):
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    self._weigh(texts[:, :-1], texts[:, -1])
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            pool = next((other.graph.pool() for other in self._graphs.values()), None)
            with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
                weights = self._weigh(texts[:, :-1], texts[:, -1])
        return _Graph(graph, texts, weights)


def _power_of_2(count: int) -> int:
    return 1 << (count - 1).bit_length()
