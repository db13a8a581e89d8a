"""Training examples come in, a tuned model folder goes out.

Open `trainer.py` first: what happens in a step and at the end of an epoch. `settings.py` lists all that a training can
be told; `batches.py` tokenizes examples and makes batches, `losses.py` holds the ranking losses, `sparsity.py` the
regularization. `distillation.py` scores batches by a teacher, `refresh.py` mines negatives anew, `guards.py` stops a
training that goes wrong, `lora.py` adds low-rank adapters. `checkpoints.py` says where a checkpoint is written and
which one is resumed; `progress.py`, `curves.py` and `model_card.py` show how a training goes and went.
"""
