"""What stays the same over a run's stages, and what each stage makes of it."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from llama_jax.config import ModelConfig
from llama_jax.kernels.matmul.lora import with_lora
from llama_jax.kernels.select import training_operators
from llama_jax.model import Operators, Params
from llama_jax.quantization.training_matmul import UNQUANTIZED, training_matmul
from llama_jax.tokenizers.interface import Tokenizer
from llama_jax.tokenizers.tokenizer_hash import tokenizer_hash
from sharding.sharded_log_probs import sharded_log_probs
from sharding.sharded_operators import shard_operators
from train.checkpointing import Checkpointer
from train.config import RunConfig
from train.evaluation import evaluate
from train.initial_weights import base_in_memory
from train.lora import abstract_adapters
from train.losses.loss import Frozen
from train.metrics_log import MetricsLog
from train.network import Network
from train.optimizer import make_optimizer
from train.preemption import Preemption
from train.profiler import Profiler
from train.reference_policy import reference_in_memory, reference_path, reference_sha256
from train.state import TrainState, abstract_state, abstract_state_of


@dataclass(frozen=True)
class Job:
    """A run on the devices at hand.

    Attributes:
      run: what is asked for.
      mesh: the devices.
      tokenizer: with whose hash the data must have been prepared.
      checkpointer, log, profiler: where things go.
      preemption: whether the job is told to end.
    """

    run: RunConfig
    mesh: Mesh
    tokenizer: Tokenizer
    checkpointer: Checkpointer
    log: MetricsLog
    profiler: Profiler
    preemption: Preemption

    @property
    def folder(self) -> Path:
        return Path(self.run.output)

    @functools.cached_property
    def tokenizer_sha256(self) -> str:
        return tokenizer_hash(self.tokenizer)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return make_optimizer(self.run.optimizer)

    def network(self, stage: int) -> Network:
        """The model of stage `stage`, ready for the mesh; of -1, as it was before the first."""
        teacher = self.run.stages[stage].reference_model if stage >= 0 else None
        return make_network(self.run, stage_model(self.run, stage), self.mesh, teacher)

    def frozen(self, stage: int) -> Frozen:
        """The arrays that the loss of stage `stage` reads and no step changes."""
        run, frozen = self.run, {}
        teacher = run.stages[stage].reference_model
        if run.lora is not None:
            frozen["base"] = base_in_memory(run, self.mesh)
        if run.stages[stage].loss.reference == "in_memory":
            path = reference_path(run, stage)
            frozen["reference"] = (
                frozen["base"]
                if run.lora is not None and path == run.initial_weights and not teacher
                else reference_in_memory(run, stage, self.mesh)
            )
        return frozen

    def reference_sha256(self, stage: int) -> str | None:
        """Of the reference model whose log-probabilities are stored beside the data of stage
        `stage`; None if its loss reads none."""
        run, config = self.run, self.run.stages[stage]
        if config.loss.reference != "stored":
            return None
        path, model = reference_path(run, stage), config.reference_model or stage_model(run, stage)
        key = config.loss.reference_key
        return reference_sha256(path, model, run.compute_dtype, run.matmul, key)

    def evaluate(self, network: Network, params: Params, stage: int) -> dict[str, float]:
        """The loss of each held-out set: its own, or that of stage `stage`."""
        return evaluate(
            network,
            params,
            self.run.evaluations,
            self.mesh,
            loss=self.run.stages[stage].loss,
            frozen=self.frozen(stage),
            tokenizer_sha256=self.tokenizer_sha256,
            reference_sha256=self.reference_sha256(stage),
        )

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state, the same in every stage."""
        dtype = jnp.dtype(self.run.param_dtype)
        if self.run.lora is not None:
            params = abstract_adapters(self.run.model, self.run.lora, self.mesh, dtype=dtype)
            return abstract_state_of(params, self.optimizer, self.mesh)
        return abstract_state(self.run.model, self.optimizer, self.mesh, dtype=dtype)


@functools.lru_cache
def make_network(
    run: RunConfig, config: ModelConfig, mesh: Mesh, teacher: ModelConfig | None = None
) -> Network:
    """The model `config` on `mesh`, in the precision and with the remat policy of `run`, and the
    `teacher` that its loss compares with, if it has one.

    The same arguments give the same object, which jitted functions know again.
    """
    operators = run_operators(run, mesh)
    return Network(
        config=config,
        operators=shard_operators(operators, mesh),
        sharded_log_probs=functools.partial(
            sharded_log_probs, mesh=mesh, vocab_chunk=run.vocab_chunk
        ),
        dtype=jnp.dtype(run.compute_dtype),
        remat=run.remat,
        lora=run.lora,
        teacher=teacher,
    )


def run_operators(run: RunConfig, mesh: Mesh) -> Operators:
    """What `run` computes with on `mesh`, for one device.

    Raises `InputError` for what the devices cannot do.
    """
    device = mesh.devices.flat[0]
    platform, kind = device.platform, device.device_kind
    operators = training_operators(platform, kind, attention=run.attention)
    matmul = training_matmul(
        run.matmul,
        platform=platform,
        device_kind=kind,
        num_devices=mesh.size,
        implementation=run.matmul_implementation,
    )
    edge_matmul = None if run.matmul == UNQUANTIZED else operators.matmul
    if run.lora is not None:
        matmul = with_lora(matmul)
    return dataclasses.replace(operators, matmul=matmul, edge_matmul=edge_matmul)


def stage_model(run: RunConfig, stage: int) -> ModelConfig:
    """The model with the RoPE settings that are in force in stage `stage`; -1 is before all."""
    config = run.model
    for earlier in run.stages[: stage + 1]:
        if earlier.rope_theta is not None:
            config = dataclasses.replace(config, rope_theta=earlier.rope_theta)
        if earlier.rope_scaling is not None:
            config = dataclasses.replace(config, rope_scaling=earlier.rope_scaling)
    return config
