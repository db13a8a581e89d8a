"""SPLADE encoder: texts in, sparse vectors over the vocabulary of a masked language model out.

Start with `encoder.py`: SpladeEncoder is the model that is trained, evaluated and searched with. `head.py` holds the
SPLADE formula, `head_cpu.py` and `head_cuda.py` its fast kernels; `packing.py` runs the transformer without padding,
`int8.py` in 8-bit integers. `vnni.py` calls the C++ of `vnni_*.cpp`, which `native.py` compiles.
"""
