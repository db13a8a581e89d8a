"""Texts come in, sparse vectors over the vocabulary of a masked language model go out.

Open `encoder.py` first: SpladeEncoder, the model that is trained, evaluated and searched with. `streaming.py` batches
texts, `vectors.py` holds the vectors, `model_folder.py` the files beside a model. `head.py`
is the SPLADE formula, `head_cpu.py` and `head_cuda.py` are its fast kernels; `packing.py` runs the transformer without
padding, `int8.py` in 8-bit integers. `vnni.py` calls the C++ of `vnni_*.cpp`, which `native.py` compiles.
"""
