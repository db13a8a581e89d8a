"""Training examples come in, a tuned model folder goes out.

Open `trainer.py` first: the steps, checkpoints and records of a training. `batches.py` makes the batches of a step,
`losses.py` holds the ranking losses, `sparsity.py` the regularization that keeps vectors sparse; `guards.py` stops a
training that goes wrong, `lora.py` adds low-rank adapters, `curves.py` and `model_card.py` tell how it went.
"""
