"""`llama-jax compare`: whether two checkpoints, of whatever formats, compute the same.

Both are run over the same token ids: some fixed ones at the first positions, the same with gaps up
to the end of the context, and those of a text if one is given. The gaps are what shows a wrong RoPE
scaling: it acts on distances between positions, and hardly on short ones. One model is in memory at
a time.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from llama_jax.checkpoints.dtypes import DtypeName, dtype_named
from llama_jax.checkpoints.formats import open_source
from llama_jax.checkpoints.huggingface_repo import resolve_source
from llama_jax.checkpoints.interface import TensorSource, quantized_names
from llama_jax.checkpoints.load import load_checkpoint
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.model import refuse_reward_model

_ROW_TOKENS = 64
_MAX_TEXT_ROWS = 16  # a row of float32 logits has 33 MB with the vocabulary of Llama 3
# Above float32's rounding along two paths to the same weights, below that of a bfloat16 copy.
_DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Probe:
    """Token ids to run, int32 `[B, T]`, and their positions, int32 `[B, T]`."""

    name: str
    tokens: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class Difference:
    """How far the logits of B are from those of A on one probe.

    Attributes:
      max_relative: largest absolute difference, over the largest absolute logit of A.
      mean_kl: KL divergence of B's next-token distribution from A's, in nats per token.
      greedy_agreement: share of tokens after which both find the same token most likely.
    """

    max_relative: float
    mean_kl: float
    greedy_agreement: float


def compare(
    a: str | Path,
    b: str | Path,
    *,
    text: str | None = None,
    dtype: str = "float32",
) -> tuple[list[str], dict[str, Difference]]:
    """Differing config fields as lines, and for each probe the difference of the logits.

    The second is empty if the vocabularies differ, because then no token means the same.
    """
    a, b = resolve_source(str(a)), resolve_source(str(b))
    sources = [open_source(path) for path in (a, b)]
    configs = [source.config for source in sources]
    for path, config in zip((a, b), configs, strict=True):
        refuse_reward_model(config, str(path))
    fields = [field.name for field in dataclasses.fields(ModelConfig)]
    lines = [
        f"{name}: {getattr(configs[0], name)} and {getattr(configs[1], name)}"
        for name in fields
        if getattr(configs[0], name) != getattr(configs[1], name)
    ]
    if configs[0].vocab_size != configs[1].vocab_size:
        return lines, {}
    probes = _probes(sources[0], configs, text)
    logits = [_logits(path, probes, dtype_named(dtype)) for path in (a, b)]
    pairs = zip(probes, *logits, strict=True)
    return lines, {probe.name: difference(ours, theirs) for probe, ours, theirs in pairs}


def difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """Compares logits, float32 `[B, T, V]`. A value that is not a number is an infinite
    difference."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    relative = np.abs(a - b).max() / np.abs(a).max()
    log_p, log_q = _log_softmax(a), _log_softmax(b)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
    return Difference(
        max_relative=float(relative) if np.isfinite(relative) else float("inf"),
        mean_kl=float(kl),
        greedy_agreement=float((a.argmax(-1) == b.argmax(-1)).mean()),
    )


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def compare_command(
    a: tyro.conf.Positional[Path],
    b: tyro.conf.Positional[Path],
    *,
    prompt_file: Path | None = None,
    tolerance: float = _DEFAULT_TOLERANCE,
    dtype: DtypeName = "float32",
) -> int:
    """Says whether two checkpoints compute the same: configs, logits, next-token distributions.

    Exit code 0 if they do, 1 if not, 2 if one cannot be read.

    Example: llama-jax compare Llama-3.1-8B llama-8b-orbax

    Args:
      a: a checkpoint of any format.
      b: another.
      prompt_file: text to run as well, read with the tokenizer of a; its first 1,024 tokens.
      tolerance: largest difference of a logit that counts as the same, relative to the largest
        logit.
      dtype: to compute in.
    """
    if not 0 <= tolerance < 1:
        raise InputError(f"--tolerance: {tolerance} must be from 0 to 1")
    try:
        text = None if prompt_file is None else prompt_file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{prompt_file}: not UTF-8 text ({error.reason})") from error
    lines, differences = compare(a, b, text=text, dtype=dtype)
    for line in lines:
        print(f"config: {line}")
    for name, found in differences.items():
        print(
            f"{name}: max difference {found.max_relative:.2e} of the logit scale, "
            f"KL {found.mean_kl:.2e} nats per token, "
            f"greedy agreement {100 * found.greedy_agreement:.1f} %"
        )
    if not differences:
        print("not the same: the vocabularies differ")
        return 1
    same = max(found.max_relative for found in differences.values()) <= tolerance
    print(f"{'the same' if same else 'not the same'} within {tolerance:g}")
    return 0 if same else 1


def _probes(a: TensorSource, configs: list[ModelConfig], text: str | None) -> list[Probe]:
    context = min(config.context_length for config in configs)
    length = min(_ROW_TOKENS, context)
    tokens = np.random.default_rng(0).integers(configs[0].vocab_size, size=(2, length))
    tokens = tokens.astype(np.int32)
    first = np.arange(length, dtype=np.int32)
    # A third each at the beginning, in the middle and at the end.
    spread = first + (context - length) * (3 * first // length) // 2
    probes = [
        Probe("fixed tokens", tokens, np.broadcast_to(first, tokens.shape)),
        Probe("across the context", tokens, np.broadcast_to(spread.astype(np.int32), tokens.shape)),
    ]
    if text is not None:
        from llama_jax.checkpoints.source_tokenizer import source_tokenizer

        probes.append(_text_probe(source_tokenizer(a).encode(text), length))
    return probes


def _text_probe(ids: list[int], length: int) -> Probe:
    """The first rows of a text, `length` tokens each. The last row ends with the text, and so
    repeats some of the row before."""
    if not ids:
        raise InputError("--prompt-file: is empty; give one with some text")
    used = ids[: _MAX_TEXT_ROWS * length]
    name = "text" if used == ids else f"text (the first {len(used):,} of {len(ids):,} tokens)"
    length = min(length, len(used))
    starts = [min(start, len(used) - length) for start in range(0, len(used), length)]
    rows = np.array([used[start : start + length] for start in starts], np.int32)
    positions = np.arange(length, dtype=np.int32)
    return Probe(name, rows, np.broadcast_to(positions, rows.shape))


def _logits(path: str | Path, probes: list[Probe], dtype: np.dtype) -> list[np.ndarray]:
    from llama_jax.model import forward, logits

    # Quantised weights may differ from layer to layer in their form.
    stacked = not quantized_names(open_source(path).tensors)
    config, params = load_checkpoint(path, dtype=dtype, stacked=stacked)

    @jax.jit
    def run(params, tokens, positions):
        hidden = forward(params, tokens, config=config, positions=positions)
        return logits(params, hidden, config=config)

    return [
        np.asarray(run(params, jnp.asarray(probe.tokens), jnp.asarray(probe.positions)))
        for probe in probes
    ]
