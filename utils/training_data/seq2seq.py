"""Queries by a local sequence-to-sequence model that was trained to write them (doc2query: arXiv 1904.08375;
docTTTTTquery: Nogueira and Lin 2019)."""

from collections.abc import Sequence

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from utils.console import progress_bar
from utils.device import resolve_device, use_threads
from utils.journal import Journal, journal_key
from utils.models import loading, resolve_model
from utils.records import Chunk, TrainingExample

BATCH_PASSAGES = 16  # passages at a time
PASSAGE_TOKENS, QUERY_TOKENS = 512, 64  # at most
TOP_K = 10  # tokens to draw the next one from


def seq2seq_examples(
    chunks: Sequence[Chunk],
    name: str,
    count: int,
    seed: int,
    journal: Journal,
    device: str | None = None,
    threads: int | None = None,
) -> list[TrainingExample]:
    """Up to `count` different queries for each chunk, drawn from the model called `name`, such as
    macavaney/doc2query-t5-base-msmarco. The queries of a batch are in the journal as soon as they are there.

    Raises:
        ValueError, OSError: the model cannot be had, or is no sequence-to-sequence model.
    """
    order = sorted(range(len(chunks)), key=lambda i: len(chunks[i].full_text))
    batches = [
        [chunks[i] for i in order[start : start + BATCH_PASSAGES]] for start in range(0, len(chunks), BATCH_PASSAGES)
    ]
    keys = [journal_key(name, str(count), str(seed), *(chunk.full_text for chunk in batch)) for batch in batches]
    missing = [number for number, key in enumerate(keys) if key not in journal.found]
    generate = _generator(name, count, device, threads) if missing else None
    for number in progress_bar(missing, desc="writing queries", unit="batches"):
        torch.manual_seed(int(keys[number][:15], 16))
        journal.add({keys[number]: generate([chunk.full_text for chunk in batches[number]])})
    queries = {chunk.id: found for key, batch in zip(keys, batches) for chunk, found in zip(batch, journal.found[key])}
    return [
        TrainingExample(
            query=query,
            positive_document=chunk.full_text,
            positive_id=chunk.id,
            source=chunk.document_id,
            query_type="seq2seq",
        )
        for chunk in chunks
        for query in dict.fromkeys(" ".join(query.split()) for query in queries[chunk.id])
        if query
    ]


def _generator(name: str, count: int, device: str | None, threads: int | None):
    """What makes of texts [texts][count] queries."""
    place = resolve_device(device)
    use_threads(threads)
    source = resolve_model(name)
    with loading(name, "a sequence-to-sequence model"):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModelForSeq2SeqLM.from_pretrained(source, use_safetensors=True, trust_remote_code=False)
    model.to(place).eval()

    @torch.inference_mode()
    def generate(texts: Sequence[str]) -> list[list[str]]:
        batch = tokenizer(texts, truncation=True, max_length=PASSAGE_TOKENS, padding=True, return_tensors="pt")
        batch = {name: batch[name].to(place) for name in ("input_ids", "attention_mask")}
        options = {"do_sample": True, "top_k": TOP_K, "num_return_sequences": count, "max_new_tokens": QUERY_TOKENS}
        written = tokenizer.batch_decode(model.generate(**batch, **options), skip_special_tokens=True)
        return [written[start : start + count] for start in range(0, len(written), count)]

    return generate
