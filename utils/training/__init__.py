"""Training examples come in, a tuned model folder goes out.

Open `trainer.py` first: what happens in a step and at the end of an epoch, where it writes a checkpoint. `settings.py`
lists all that a training can be told; `examples.py` reads the examples, `tokenization.py` tokenizes them, `batches.py`
makes batches, `neighborhoods.py` those of near documents, `identity.py` tells which texts are the same, `losses.py`
holds the ranking losses, `sparsity.py` the FLOPS and L1 regularizers. `distillation.py` scores batches by teachers,
`refresh.py` mines negatives anew, `guards.py` stops a training that goes wrong, `lora.py` adds low-rank adapters.
`checkpoints.py` adds the state to a checkpoint, removes old ones and finds the one to resume; `selection.py` decides
which weights are kept; `progress.py`, `curves.py` and `model_card.py` show how a training goes and went.
"""
