"""What a run is: model, mesh, optimiser and stages in one frozen dataclass.

A run is written as a Python function in `configs/` that returns a `RunConfig`; its docstring gives
the command, the hardware and what to expect. `llama-jax train RUN --field value` overrides any
field, by type. The whole schedule of a model, from the first token to the end of annealing, is one
`RunConfig`: its `stages` follow one another, and each starts from the weights of the last.
"""

from dataclasses import dataclass

from llama_jax.config import ModelConfig, RopeScaling
from sharding.mesh import MeshShape
from train.lora import LoraConfig
from train.losses.bradley_terry import BradleyTerry
from train.losses.cross_entropy import CrossEntropy
from train.losses.distillation import Distillation
from train.losses.dpo import Dpo
from train.schedules import LearningRate

# The losses that a stage may have.
StageLoss = CrossEntropy | Dpo | BradleyTerry | Distillation


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (arXiv 1711.05101) after clipping by the global norm.

    Attributes:
      beta1: decay of the first moment.
      beta2: decay of the second moment.
      epsilon: added to the root of the second moment.
      weight_decay: times the learning rate, subtracted from every matrix; norms do not decay.
      clip_norm: the greatest global norm of the gradient.
      moment_dtype: of the first moment; the second is float32.
      spike_factor: a step is skipped if its gradient norm is over this many times the running mean
        of the accepted ones; None never skips for that. Steps that are not finite are always
        skipped.
      max_skipped: this many skipped steps in a row end the run with an error.
    """

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    moment_dtype: str = "float32"
    spike_factor: float | None = None
    max_skipped: int = 20


@dataclass(frozen=True)
class Source:
    """One data set of a mixture.

    Attributes:
      name: as the metrics call it.
      path: folder that `llama-jax data prepare`, `data dialogs` or `data preferences` wrote, with
        the stage's row length.
      weight: its share of the rows, relative to the other weights.
    """

    name: str
    path: str
    weight: float


@dataclass(frozen=True)
class BatchStep:
    """How many rows a step has, from a number of tokens on.

    Attributes:
      after_tokens: tokens of the stage from which on this holds.
      rows: of a step.
      micro_batches: into how many parts they are split, whose gradients are summed in float32:
        memory grows with rows / micro_batches.
    """

    after_tokens: int
    rows: int
    micro_batches: int = 1


@dataclass(frozen=True)
class Gate:
    """What the model must show before the next stage begins (arXiv 2407.21783, section 3.4.2).

    Attributes:
      short_set: the evaluation set whose loss must be back at its level before the stage, with the
        RoPE settings of before.
      max_loss_increase: over that level, in nats a token.
      needle_accuracy: share of needles that must be found in rows of the stage's length.
      num_needles: how many are hidden, at evenly spread depths.
      extra_tokens: trained on, where the gate is not passed, before it is tried again.
      max_extra_rounds: how often that is done.
      on_failure: after the last round: `stop` ends the run with an error, `continue` goes on.
    """

    short_set: str
    max_loss_increase: float
    needle_accuracy: float
    num_needles: int
    extra_tokens: int
    max_extra_rounds: int
    on_failure: str


@dataclass(frozen=True)
class StageConfig:
    """A loss, a data set and how long.

    Attributes:
      name: unique in the run.
      num_tokens: how many tokens it trains on, rounded up to whole steps.
      row_length: tokens that a row predicts (T); the data must be prepared with it.
      mixture: where rows come from.
      batch: rows a step, by tokens seen in the stage; the first begins at 0.
      learning_rate: by step.
      loss: what is minimised; it must fit the kind of rows in the mixture.
      reference: checkpoint of the model that the loss compares with, if it has one: a reference
        policy, or a teacher; None is the run's `initial_weights`.
      reference_model: what that model is, if it is a teacher; None is the run's `model`.
      rope_theta: replaces that of the model from here on; None keeps it.
      rope_scaling: replaces that of the model from here on; None keeps it.
      gate: what must hold at its end.
      average_last: so many checkpoints, spread evenly over the stage, are averaged into the weights
        at its end (Polyak), at most one a step; 0 keeps the last.
    """

    name: str
    num_tokens: int
    row_length: int
    mixture: tuple[Source, ...]
    batch: tuple[BatchStep, ...]
    learning_rate: LearningRate
    loss: StageLoss = CrossEntropy()
    reference: str | None = None
    reference_model: ModelConfig | None = None
    rope_theta: float | None = None
    rope_scaling: RopeScaling | None = None
    gate: Gate | None = None
    average_last: int = 0


@dataclass(frozen=True)
class EvaluationSet:
    """Held-out rows: `num_rows` from the start of the prepared folder `path`, always the same.

    Attributes:
      name: as the metrics, gates and `best_set` call it.
      path: folder that one of the `llama-jax data` commands wrote, with any row length that the
        model takes.
      num_rows: how many of its rows are evaluated.
      batch_rows: rows a step of evaluation, a multiple of the devices that split a batch.
      loss: what is measured of them; None is the loss of the stage under way.
    """

    name: str
    path: str
    num_rows: int
    batch_rows: int
    loss: StageLoss | None = None


@dataclass(frozen=True)
class CheckpointConfig:
    """Attributes:
    every_steps: how often one is saved; also at the end of each stage and on SIGTERM.
    keep: how many of the latest are kept.
    best_set: the evaluation set whose lowest loss keeps one checkpoint more; None keeps none.
    """

    every_steps: int
    keep: int = 3
    best_set: str | None = None


@dataclass(frozen=True)
class ProfileWindow:
    """Steps that are traced into `RUN_DIR/profile`.

    Attributes:
      first_step: counted from 1.
      num_steps: how many.
    """

    first_step: int
    num_steps: int


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    Attributes:
      output: the run's folder: checkpoints, metrics, the config itself.
      model: what is trained.
      tokenizer: a file or folder that `load_tokenizer` knows; its hash must be that of the data.
      initial_weights: a checkpoint of any format to start from, a policy's for a reward model too;
        None starts from random weights.
      seed: of the initial weights and of the order of the data.
      mesh: how the devices are arranged.
      compute_dtype: of activations and of the weights that are multiplied with them.
      param_dtype: of the weights that the optimiser changes.
      remat: what the backward pass keeps: none, products, projections, attention or full.
      attention: auto, or implementations in order of preference: reference, chunked, mosaic_gpu,
        cudnn, splash, flash_tpu; the first that can do it runs, and one alone must.
      matmul: what the linear layers multiply in: bfloat16 (unquantised, in compute_dtype),
        fp8_tensorwise, fp8_rowwise, fp8_rowwise_bf16_wgrad or int8. The first and the last block,
        the embedding and the head are never quantised.
      matmul_implementation: what multiplies 8-bit numbers: auto, xla, cublas, mosaic_gpu or
        emulate.
      lora: trains a low-rank change of `initial_weights`, which stay as they are and may be
        quantised; None trains the weights themselves.
      vocab_chunk: rows of the head that the loss multiplies at once, on each device.
      optimizer: AdamW and what steps are skipped.
      stages: in order.
      checkpoint: when and how many.
      evaluations: held-out sets.
      evaluate_every_steps: how often `evaluations` are made, and at the end of each stage; 0 only
        then.
      log_every_steps: steps between lines of metrics.
      profile: which steps are traced.
    """

    output: str
    model: ModelConfig
    tokenizer: str
    stages: tuple[StageConfig, ...]
    checkpoint: CheckpointConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshShape = MeshShape()
    initial_weights: str | None = None
    seed: int = 0
    compute_dtype: str = "bfloat16"
    param_dtype: str = "float32"
    remat: str = "full"
    attention: tuple[str, ...] = ("auto",)
    matmul: str = "bfloat16"
    matmul_implementation: str = "auto"
    lora: LoraConfig | None = None
    vocab_chunk: int = 8192
    evaluations: tuple[EvaluationSet, ...] = ()
    evaluate_every_steps: int = 0
    log_every_steps: int = 1
    profile: ProfileWindow | None = None
