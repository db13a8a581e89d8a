"""Texts come in, sparse vectors over the vocabulary of a masked language model go out.

Open `encoder.py` first: SpladeEncoder, the model that is trained, evaluated and searched with. `tokenization.py` cuts
and pads texts, `streaming.py` batches them, `vectors.py` holds the vectors, `vector_lines.py` writes files of them that
outlive an interrupt, `model_folder.py` the files beside a model.
`projection.py` takes the vocabulary projection out of the transformer, for `head.py`, the SPLADE formula, whose fast
kernels are `head_cpu.py` and `head_cuda.py`; `packing.py` runs the transformer without padding. On the CPU,
`layers_cpu.py` are its layers for encoding, in float32, bfloat16 or 8 bits, and `attention_cpu.py` its attention for
training. `kernels.py` calls the C++ of `cpp/`, which `native.py` compiles.
"""
