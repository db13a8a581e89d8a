"""Fine-tune a SPLADE model on training examples.

    python train_splade.py --train-file training_data.json --output-dir ./fine_tuned_splade
    python train_splade.py --model-name splade-tiny --train-file training_data.json --learning-rate 2e-4 --batch-size 32
    python train_splade.py --train-file training_data.json --target-doc-terms 120 --target-query-terms 20
    python train_splade.py --train-file training_data.json --resume
    python train_splade.py --train-file training_data.json --teacher minilm bm25
    torchrun --nproc-per-node 4 train_splade.py --train-file training_data.json

    from train_splade import SpladeTrainer
    SpladeTrainer(model_name="splade-tiny", train_file="training_data.json").train()

Each query is trained against its own document, its hard negatives and all other documents of the batch, while a
regularizer keeps the vectors sparse. The output folder opens with SpladeEmbedder and with transformers'
AutoModelForMaskedLM; README.md and training_history.json in it tell how the training went.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, validate_call
from transformers import EarlyStoppingCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback, is_tensorboard_available

from utils.arguments import ScriptParser, auto_or_positive_int, number_in_range, positive_int
from utils.console import print_line, quiet_libraries, run_script
from utils.device import compute_dtype, resolve_device
from utils.documents.normalization import NORMALIZATIONS, normalizing_tokenizer
from utils.evaluation.collection import pool_examples
from utils.files import check_writable, write_json, write_text
from utils.records import TrainingExample, read_examples
from utils.search.scorers import VectorScorer, open_fused_scorer, splade_scorer
from utils.splade.encoder import SpladeEncoder
from utils.training.batches import StepBatchSampler, corpus_idf, number_texts, tokenize_examples
from utils.training.guards import TrainingGuard
from utils.training.lora import add_adapters, merge_adapters
from utils.training.losses import BATCH_TEACHER_LOSS, RankingLoss
from utils.training.model_card import model_card
from utils.training.sparsity import REGULARIZERS, WARM_UP_SHARE, SparsityController
from utils.training.trainer import SIDES, STATE_NAME, VALIDATION_METRIC, EncoderTrainer
from utils.training_data.negatives_mined import mine_negatives

VAL_FILE = "validation_data.json"
QUERY_ENCODERS = ("model", "idf")
AUTO_BATCH_SIZE = 32  # see the ablation in docs/training.md
BERT_RATE, BERT_WIDTH = 5e-5, 768  # learning rate of a model of BERT-base's width; narrower ones take more
LORA_RATE_FACTOR = 5  # times the learning rate of all weights
DISTILLATION_LOSSES = ["contrastive=0.5", f"{BATCH_TEACHER_LOSS}=0.5"]  # the loss where there is a teacher
TEACHER_SPREAD = 2.0  # standard deviation of a teacher's scores
CURVE_POINTS = 200  # of a training's curves


class SpladeTrainer:
    """Fine-tunes a SPLADE model, or any masked language model, into `output_dir`.

    A training that was interrupted has its last and its best epoch as model folders in output_dir/checkpoints.

    Args:
        model_name: what to start from: `splade-tiny`, a model folder or a hub id.
        output_dir: where the model folder goes, with training_history.json and a model card, README.md.
        train_file, val_file: examples (utils.records.TrainingExample). Without a validation file at the default
            place, here or beside the training file, the last epoch's weights are kept rather than the best epoch's.
        learning_rate: peak of AdamW's, after a linear warm-up over `warmup_ratio` of the steps, then linear to 0. None
            for 5e-5 times the square root of 768 over the model's width: 5e-5 for BERT-base, 1.2e-4 for SPLADE-tiny;
            with `lora_rank`, five times as much.
        batch_size: queries a step, and process; each brings its positive and its negatives. None for AUTO_BATCH_SIZE.
        batch_size_schedule: batch sizes one after the other, each for an equal share of the examples.
        micro_batch_size: texts that pass through the model at a time, None for as many of a step's as fit the memory.
            Less memory for more time, and the same gradient: all documents of the batch stay negatives (GradCache, Gao
            et al., arXiv 2101.06983).
        gradient_checkpointing: keep a layer's input only and work it out again in the backward pass: less memory still.
        lora_rank: train low-rank adapters of this rank instead of all weights; they are merged when the model is saved.
        query_encoder: `model`, or `idf` for queries that do not pass the model: a query's vector is the weights of its
            own tokens, which start as inverse document frequencies and are trained. None for what the model has.
        teacher: names, or `name=weight`, of what scores all documents of a batch for the loss `kl-batch`, see
            utils.search.scorers; the scores are brought to a deviation of TEACHER_SPREAD over random pairs.
        refresh_negatives: mine that many hard negatives an example with the model in training before each epoch but the
            first; where there is a teacher, none that it takes for an answer.
        loss: a sum of losses by weight, such as ["contrastive=0.5", "kl=0.5"]; see
            utils.training.losses.RankingLoss. None for `contrastive`, with half the weight on `kl-batch` where there
            is a teacher.
        temperature: what the losses `kl` and `kl-batch` divide the teacher's scores by.
        regulariser: flops or l1.
        lambda_d, lambda_q: its weights on documents and queries, reached over the first third of the steps.
        target_doc_terms, target_query_terms: mean number of active terms of a document and of a query to arrive at;
            the regularizer's weight is then steered, and lambda_d or lambda_q not used.
        max_length, query_max_length: limits in tokens.
        normalize: of all texts, queries too, in training and by whoever opens the model: nfkc (Unicode's compatibility
            form), nfkc-lowercase, or none.
        dropout: of hidden states, in place of the model's own; attention probabilities have none.
        best_by: what makes an epoch the best on the validation examples: their `loss`, or `nDCG@10` in retrieval among
            all their documents. With a target number of terms it also has to be there, within 10 %.
        early_stopping_patience: epochs without a better one after which to stop; None for never.
        resume: go on with a training that was interrupted, from its last whole epoch.
        device: None for the best one here, or cuda, mps, cpu.
        precision: bfloat16, float32 or, on CUDA and MPS, float16 with loss scaling; auto takes bfloat16 where the
            device is fast at it.
        threads: of the processor; None for OMP_NUM_THREADS, or one a core.

    Raises:
        ValueError, OSError: a setting, file or model that cannot work; all are checked before training starts.
    """

    @validate_call
    def __init__(
        self,
        model_name: str | Path = "prithivida/Splade_PP_en_v1",
        output_dir: str | Path = "./fine_tuned_splade",
        train_file: str | Path = "training_data.json",
        val_file: str | Path | None = VAL_FILE,
        learning_rate: NonNegativeFloat | None = None,
        batch_size: PositiveInt | None = None,
        epochs: PositiveInt = 3,
        lambda_d: NonNegativeFloat = 1e-4,
        lambda_q: NonNegativeFloat = 1e-4,
        max_length: PositiveInt = 512,
        query_max_length: PositiveInt = 128,
        normalize: Literal[tuple(NORMALIZATIONS)] = "nfkc",
        warmup_ratio: float = 0.1,
        dropout: float = 0.0,
        batch_size_schedule: Sequence[PositiveInt] | None = None,
        micro_batch_size: PositiveInt | None = None,
        gradient_checkpointing: bool = False,
        lora_rank: PositiveInt | None = None,
        query_encoder: Literal[QUERY_ENCODERS] | None = None,
        teacher: Sequence[str] = (),
        refresh_negatives: PositiveInt | None = None,
        loss: Sequence[str] | None = None,
        temperature: PositiveFloat = 1.0,
        regulariser: Literal[tuple(REGULARIZERS)] = "flops",
        target_doc_terms: PositiveFloat | None = None,
        target_query_terms: PositiveFloat | None = None,
        best_by: Literal["loss", VALIDATION_METRIC] = "loss",
        early_stopping_patience: PositiveInt | None = None,
        resume: bool = False,
        seed: int = 42,
        device: str | None = None,
        precision: str = "auto",
        threads: PositiveInt | None = None,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "resume")}
        quiet_libraries()
        if precision == "int8":
            raise ValueError("precision 'int8' is for encoding; train in auto, bfloat16, float16 or float32")
        loss = loss or (DISTILLATION_LOSSES if teacher else ["contrastive"])
        self.objective = RankingLoss(loss, temperature)
        if (BATCH_TEACHER_LOSS in self.objective.weights) != bool(teacher):
            raise ValueError(f"loss '{BATCH_TEACHER_LOSS}' and a teacher need each other: name both or none")
        if refresh_negatives and self.objective.teacher_losses:
            raise ValueError(f"loss '{self.objective.teacher_losses[0]}' has no scores for refreshed negatives")
        settings |= {
            "loss": list(loss),
            "teacher": list(teacher),
            "batch_size_schedule": batch_size_schedule and list(batch_size_schedule),
        }
        self.settings = {name: str(v) if isinstance(v, Path) else v for name, v in settings.items()}
        self.output_dir = Path(output_dir)
        self.device = resolve_device(device)
        if self.device.type == "cuda" and "LOCAL_RANK" in os.environ:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if self.device.index is not None:
            raise ValueError(
                f"to train on {self.device}, set CUDA_VISIBLE_DEVICES={self.device.index} and --device cuda"
            )
        self.dtype = compute_dtype(self.device, precision)
        self.examples = self._read(train_file)
        val_path = _find_validation(val_file, train_file)
        self.validation = self._read(val_path) if val_path else []
        if early_stopping_patience and not self.validation:
            raise ValueError("early stopping needs a validation file")
        check_writable(self.output_dir, folder=True)
        self.encoder = SpladeEncoder.from_pretrained(model_name, self.device, max_length, precision, threads)
        self.encoder.query_max_length = min(query_max_length, self.encoder.max_length)
        self.encoder.base_model = str(model_name)
        self.encoder.tokenizer = normalizing_tokenizer(self.encoder.tokenizer, normalize)
        if learning_rate is None:
            rate = BERT_RATE * (BERT_WIDTH / self.encoder.model.config.hidden_size) ** 0.5
            self.settings["learning_rate"] = rate * (LORA_RATE_FACTOR if lora_rank else 1)
        self.checkpoint = self._find_checkpoint(resume)
        if query_encoder == "model":
            self.encoder.query_weights = None
        self.rows = tokenize_examples(self.examples, self.encoder)
        if query_encoder == "idf" and self.encoder.query_weights is None:
            self.encoder.query_weights = torch.nn.Parameter(corpus_idf(self.rows, self.encoder).to(self.device))
        if target_query_terms and self.encoder.query_weights is not None:
            raise ValueError("target_query_terms is for queries that pass the model; these have their own tokens")
        _set_dropout(self.encoder.model, dropout)
        if lora_rank:
            torch.manual_seed(seed)
            add_adapters(self.encoder.model, lora_rank)
        if gradient_checkpointing:
            self.encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.validation_rows = tokenize_examples(self.validation, self.encoder)
        if teacher or refresh_negatives:
            self.queries, self.documents = number_texts(self.rows + self.validation_rows)
            # Of the training documents, which were numbered first.
            self.tokens = {n: ids for row in self.rows for n, ids in zip(row["numbers"][1:], row["documents"])}
        self.teacher = open_fused_scorer(teacher, self.queries, self.documents, device, threads) if teacher else None
        if self.teacher:
            for part in self.teacher.teachers:
                if not isinstance(part, VectorScorer):
                    raise ValueError(
                        f"teacher '{part.name}' is a cross-encoder, too slow for all of a batch; use "
                        "score_training_data.py and the loss kl"
                    )
            self.objective.teacher = self._teacher_scores
        self.history: list[dict[str, Any]] = []

    def train(self) -> list[dict[str, Any]]:
        """Train, keep the best epoch on the validation examples, and write the model folder.

        Returns:
            One record an epoch, as in training_history.json: epoch, step, loss, query_terms, doc_terms, lambda_q,
            lambda_d, seconds, and where there are validation examples val_loss, val_nDCG@10, val_query_terms,
            val_doc_terms.

        Raises:
            ValueError: the training went wrong: a loss that is no number, vectors all empty or all full.
        """
        settings = self.settings
        sizes = settings["batch_size_schedule"] or [settings["batch_size"] or AUTO_BATCH_SIZE]
        arguments = TrainingArguments(
            output_dir=str(self._checkpoints),
            num_train_epochs=settings["epochs"],
            per_device_eval_batch_size=sizes[-1],
            learning_rate=settings["learning_rate"],
            warmup_steps=settings["warmup_ratio"],
            weight_decay=0.01,
            bf16=self.dtype == torch.bfloat16,
            fp16=self.dtype == torch.float16,
            use_cpu=self.device.type == "cpu",
            ddp_broadcast_buffers=False,
            ddp_find_unused_parameters=False,
            ddp_backend="gloo" if self.device.type == "cpu" and "WORLD_SIZE" in os.environ else None,
            seed=settings["seed"],
            eval_strategy="epoch" if self.validation else "no",
            save_strategy="epoch",
            load_best_model_at_end=bool(self.validation),
            metric_for_best_model="score",
            greater_is_better=True,
            prediction_loss_only=True,
            disable_tqdm=True,
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=self.device.type == "cuda",
        )
        arguments._n_gpu = min(1, arguments.n_gpu)  # several devices mean several processes, never DataParallel
        self._report_cut()
        batches = StepBatchSampler(
            len(self.rows), sizes, settings["epochs"], settings["seed"], arguments.process_index, arguments.world_size
        )
        steps = len(batches) * settings["epochs"]
        arguments.logging_steps = max(1, steps // CURVE_POINTS)
        trainer = EncoderTrainer(
            self.encoder,
            arguments,
            batches,
            self.rows,
            self.validation_rows,
            pool_examples(self.validation),
            self.objective,
            sparsity=self._sparsity(steps),
            guard=TrainingGuard(self.encoder.model.config.vocab_size, WARM_UP_SHARE * steps, settings["learning_rate"]),
            settings=settings,
            refresh=self._refresh if settings["refresh_negatives"] else None,
        )
        if is_tensorboard_available() and arguments.process_index == 0:
            from torch.utils.tensorboard import SummaryWriter

            trainer.add_callback(TensorBoardCallback(SummaryWriter(self.output_dir / "runs")))
        if settings["early_stopping_patience"]:
            trainer.add_callback(EarlyStoppingCallback(settings["early_stopping_patience"]))
        trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
        self.encoder.eval()
        if settings["lora_rank"]:
            merge_adapters(self.encoder.model)
        self.history = trainer.history
        if arguments.should_save:
            self._write(trainer)
        return self.history

    def _teacher_scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """[queries, documents] the teacher's scores, of the same deviation whatever the teacher."""
        return self.teacher.block_scores(queries, documents) * (TEACHER_SPREAD / self.teacher.deviation)

    def _refresh(self) -> None:
        """Mine hard negatives for all rows, among the training documents, with the model as it is."""
        self.encoder.eval()
        documents = self.documents[: len(self.tokens)]
        miner = splade_scorer("model", self.encoder, self.queries, documents)
        queries, positives = zip(*(row["numbers"][:2] for row in self.rows))
        origins = [row["origin"] for row in self.rows]
        mined, _ = mine_negatives(queries, positives, origins, miner, self.teacher, self.settings["refresh_negatives"])
        for row, pool in zip(self.rows, mined):
            row["numbers"][2:] = pool
            row["documents"][1:] = [self.tokens[number] for number in pool]
            row["keys"][1:] = [documents[number] for number in pool]
            row.pop("scores", None)

    def _sparsity(self, steps: int) -> dict[str, SparsityController]:
        settings = self.settings
        lambdas = {side: settings[f"lambda_{side[0]}"] for side in SIDES}
        if self.encoder.query_weights is not None:
            lambdas["query"] = 0.0  # these have few terms as it is
        return {
            side: SparsityController(weight, steps, settings["regulariser"], settings[f"target_{side}_terms"])
            for side, weight in lambdas.items()
        }

    def _write(self, trainer: EncoderTrainer) -> None:
        """The model folder with all that tells of the training; then the checkpoints go."""
        from utils.training.curves import save_curves  # matplotlib takes half a second to import

        best, count = trainer.best_epoch, len(self.examples)
        self.encoder.training_notes = {**self.settings, "examples": count, "best_epoch": best}
        self.encoder.save_pretrained(self.output_dir)
        write_json(self.output_dir / "training_history.json", {"settings": self.settings, "epochs": self.history})
        steps = [record for record in trainer.state.log_history if "doc_terms" in record]
        save_curves(self.output_dir / "training_curves.png", steps, self.history, VALIDATION_METRIC)
        write_text(self.output_dir / "README.md", model_card(self.settings, self.history, best, count))
        shutil.rmtree(self._checkpoints, ignore_errors=True)

    @property
    def _checkpoints(self) -> Path:
        return self.output_dir / "checkpoints"

    def _read(self, path: str | Path) -> list[TrainingExample]:
        """The examples with a query and a positive document."""
        examples = read_examples(path)
        usable = [e for e in examples if e.query.strip() and e.positive_document.strip()]
        if not usable:
            raise ValueError(f"{path}: every example has an empty query or positive document")
        if len(usable) < len(examples):
            print_line(
                f"{path}: skipped {len(examples) - len(usable)} examples with an empty query or positive document"
            )
        teacher_losses = self.objective.teacher_losses
        without_scores = sum(example.scores is None for example in usable)
        if teacher_losses and without_scores:
            raise ValueError(
                f"{path}: loss '{teacher_losses[0]}' learns from a teacher, and {without_scores:,} of {len(usable):,} "
                "examples have no field 'scores'"
            )
        return usable

    def _find_checkpoint(self, resume: bool) -> Path | None:
        """The last whole checkpoint of an interrupted training of the same settings, where one is to be resumed."""
        whole = [path.parent for path in self._checkpoints.glob(f"checkpoint-*/{STATE_NAME}")]
        if whole and not resume:
            raise ValueError(
                f"{self._checkpoints}: holds an interrupted training; go on with it by --resume, or remove this folder"
            )
        if not whole:
            if resume:
                print_line(f"{self._checkpoints}: nothing to resume; training from the beginning")
            return None
        last = max(whole, key=lambda path: int(path.name.rpartition("-")[2]))
        before = json.loads((last / STATE_NAME).read_text(encoding="utf-8"))["settings"]
        same = json.loads(json.dumps(self.settings))
        for name in same.keys() - {"device", "threads", "output_dir"}:
            if before.get(name) != same[name]:
                raise ValueError(
                    f"{last}: was trained with {name} {before.get(name)}, not {same[name]}; resume with the same"
                )
        return last

    def _report_cut(self) -> None:
        """Say how many texts the length limits cut."""
        encoder = self.encoder
        documents = {text for example in self.examples for text in (example.positive_document, *example.negatives)}
        queries = {example.query for example in self.examples}
        for name, texts, limit in (
            ("documents", documents, encoder.max_length),
            ("queries", queries, encoder.query_max_length),
        ):
            cut = encoder.count_truncated(sorted(texts), limit)
            if cut:
                print_line(f"{cut:,} of {len(texts):,} {name} are longer than {limit} tokens and are cut there")


def _set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Dropout of hidden states; that of attention probabilities is off, since fused attention cannot have it."""
    for parent in model.modules():
        is_attention = hasattr(parent, "num_attention_heads") or hasattr(parent, "n_heads")
        for part in parent.children():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0 if is_attention else probability


def _find_validation(val_file: str | None, train_file: str) -> str | Path | None:
    """The validation file; the default name is looked for here and beside the training file, and may be missing."""
    if val_file != VAL_FILE or Path(val_file).exists():
        return val_file
    beside = Path(train_file).with_name(VAL_FILE)
    if not beside.exists():
        print_line(f"no {VAL_FILE} here or beside {train_file}: training without validation")
    return beside if beside.exists() else None


def main(args: argparse.Namespace) -> None:
    options = {k: v for k, v in vars(args).items() if k != "debug"}
    trainer = SpladeTrainer(**options)
    print_line(f"{len(trainer.examples):,} examples, {len(trainer.validation):,} for validation, on {trainer.device}")
    trainer.train()
    print_line(f"model -> {args.output_dir}")


def parse_args() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--model-name", default="prithivida/Splade_PP_en_v1", help="splade-tiny, a model folder or a hub id")
    add("--output-dir", default="./fine_tuned_splade", help="model folder to write")
    add("--train-file", default="training_data.json", help="training examples, .json or .jsonl")
    add("--val-file", default=VAL_FILE, help="validation examples; by default also looked for beside the train file")
    add("--learning-rate", type=number_in_range(float, 0), default=None,
        help="peak learning rate; default: 5e-5 for a model as wide as BERT-base, more for narrower ones")  # fmt: skip
    add("--batch-size", type=auto_or_positive_int, default="auto", help=f"queries a step; auto: {AUTO_BATCH_SIZE}")
    add("--batch-size-schedule", type=positive_int, nargs="+", default=None, metavar="SIZE",
        help="sizes to grow through, such as 8 16 32, in place of --batch-size")  # fmt: skip
    add("--micro-batch-size", type=positive_int, default=None, metavar="TEXTS",
        help="texts in the model at a time; default: as many as fit the memory")  # fmt: skip
    add("--gradient-checkpointing", action="store_true", help="less memory for more time")
    add("--lora-rank", type=positive_int, default=None, metavar="RANK", help="train adapters of this rank (needs peft)")
    add("--epochs", type=positive_int, default=3, help="passes over the training examples")
    add("--query-encoder", choices=QUERY_ENCODERS, default=None,
        help="idf: queries are weighted tokens, and do not pass the model; default: as the model has it")  # fmt: skip
    add("--teacher", nargs="+", default=[], metavar="NAME[=WEIGHT]",
        help="what scores a batch's documents to learn from: minilm, bm25, a model; several are fused")  # fmt: skip
    add("--refresh-negatives", type=positive_int, default=None, metavar="N",
        help="hard negatives an example to mine with the model in training between epochs")  # fmt: skip
    add("--loss", nargs="+", default=None, metavar="NAME[=WEIGHT]",
        help="sum of contrastive, margin, with --teacher kl-batch, for examples with scores margin-mse, kl; "
        f"default: contrastive, with --teacher {' '.join(DISTILLATION_LOSSES)}")  # fmt: skip
    add("--temperature", type=float, default=1.0, help="what the teacher's scores are divided by")
    add("--regulariser", choices=list(REGULARIZERS), default="flops", help="what keeps vectors sparse")
    add("--lambda-d", type=number_in_range(float, 0), default=1e-4, help="regularization of documents")
    add("--lambda-q", type=number_in_range(float, 0), default=1e-4, help="regularization of queries")
    add("--target-doc-terms", type=float, default=None, metavar="N", help="active terms a document to arrive at")
    add("--target-query-terms", type=float, default=None, metavar="N", help="active terms a query to arrive at")
    add("--max-length", type=positive_int, default=512, help="tokens a document at most")
    add("--query-max-length", type=positive_int, default=128, help="tokens a query at most")
    add("--normalize", choices=list(NORMALIZATIONS), default="nfkc", help="of documents and queries, by the tokenizer")
    add("--warmup-ratio", type=number_in_range(float, 0, 1), default=0.1, help="share of the steps that warm up")
    add("--dropout", type=number_in_range(float, 0, 0.9), default=0, help="dropout of hidden states in training")
    add(
        "--best-by",
        choices=["loss", VALIDATION_METRIC],
        default="loss",
        help="what the best epoch has on the validation file",
    )
    add(
        "--early-stopping-patience",
        type=positive_int,
        default=None,
        metavar="EPOCHS",
        help="stop after so many without a better one",
    )
    add("--resume", action="store_true", help="go on with an interrupted training")
    add("--seed", type=int, default=42, help="seed of the order of examples and of dropout")
    parser.add_device_arguments("auto", "bfloat16", "float16", "float32")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
