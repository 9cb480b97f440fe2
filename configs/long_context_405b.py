"""Llama 3.1 405B from 8K to 128K tokens of context, in six gated steps.

The mixtures of lengths are folders `data/ROW_LENGTH/KIND_to_LENGTH`: rows of ROW_LENGTH tokens of
the documents that have more than LENGTH / 2 tokens, BOS and EOS included, and at most LENGTH. The
first bucket has all shorter documents too, the last all longer ones. For each KIND of the mix (in
bash; the texts are tokenised once a folder, 21 times):

    for row in 4096 8192 16384 32768 65536 131072; do
      for ((length = 4096; length <= row; length *= 2)); do
        range=()
        ((length > 4096)) && range+=(--min-tokens $((length / 2 + 1)))
        ((length < 131072)) && range+=(--max-tokens $length)
        llama-jax data prepare text/KIND --tokenizer tokenizer --row-length $row \\
          "${range[@]}" --output data/$row/KIND_to_$length
      done
    done
"""

import dataclasses

from configs.meshes import V5P_1024_LONG
from configs.models import MODELS
from configs.pretrain_405b import MEBI, held_out, pretrain_405b
from train.config import Gate, RunConfig
from train.stages.long_context import LongContextStep, long_context_stages
from train.stages.mixtures import LLAMA_3_MIX

# Six stages and about 800B tokens are published (arXiv 2407.21783, section 3.4.2); their lengths
# and how the tokens are shared among them are not. Here each doubles the length, and longer ones,
# which are harder and have fewer rows, get more.
STEPS = (
    LongContextStep(row_length=4096, num_tokens=40_000_000_000),
    LongContextStep(row_length=8192, num_tokens=40_000_000_000),
    LongContextStep(row_length=16_384, num_tokens=100_000_000_000),
    LongContextStep(row_length=32_768, num_tokens=150_000_000_000),
    LongContextStep(row_length=65_536, num_tokens=200_000_000_000),
    LongContextStep(row_length=131_072, num_tokens=270_000_000_000),
)

# The published cosine goes on: its height after the 1.10M steps of `pretrain_405b`, and after the
# 47,700 steps more of these stages.
FIRST_RATE, LAST_RATE = 2.14e-6, 1.16e-6

# The paper asks for full recovery on short texts and for perfect retrieval. A hundredth of a nat is
# what the noise of the sets allows us to call full.
GATE = Gate(
    short_set="general",
    max_loss_increase=0.01,
    needle_accuracy=1.0,
    num_needles=128,
    extra_tokens=10_000_000_000,
    max_extra_rounds=3,
    on_failure="stop",
)


def long_context_405b() -> RunConfig:
    """Llama 3.1 405B, 800B tokens with 4K, 8K, 16K, 32K, 64K and 128K tokens a row.

    Command: on every host, `llama-jax train long_context_405b`, in the folder of `pretrain_405b`,
      whose weights it starts from; `data` holds each kind of the mix by length of document: the
      commands that make it are at the top of this file.
    Hardware: TPU v5p:8x8x16, 1,024 chips. A step of 16M tokens has 128 rows of 128K, so no more
      than 128 groups of 8 chips can share it.
    Time: an estimate, nothing was measured: FLOPs a token, causal, are 2.5e12 up to 8K and 4.0e12
      at 128K, 2.6e24 in all; 1,024 chips x 459e12 FLOP/s x 0.5 utilisation is 2.35e17/s: 129 days.
    Expected loss: not published, and not measured here; the gates hold the loss on short texts
      within 0.01 nat of where each stage found it.

    Not published, and chosen here: lengths, mixtures, RoPE scaling on the way and rates. The rate
    follows the cosine of pretraining along a line. The moments of AdamW begin anew; the run
    `llama_405b` keeps them.
    """
    return dataclasses.replace(
        pretrain_405b(),
        output="runs/long_context_405b",
        initial_weights="runs/pretrain_405b/weights",
        model=dataclasses.replace(MODELS["llama31_405b"], rope_scaling=None),
        stages=long_context_stages(
            STEPS,
            tokens_per_step=16 * MEBI,
            first_rate=FIRST_RATE,
            last_rate=LAST_RATE,
            mix=LLAMA_3_MIX,
            data="data",
            gate=GATE,
        ),
        mesh=V5P_1024_LONG,
        evaluations=held_out(batch_rows=128),
        evaluate_every_steps=500,
    )
