"""The peer of `llama-jax bench train` on a CPU: transformers' Llama with torch's AdamW.

The same weights, batch, clipping, decay and learning rate. Attention is torch's scaled dot-product
attention, which takes its fast causal path where a row is one document; AdamW is the fused one. For
bfloat16 there are two ways, and both run: autocast with float32 weights, which is what our side
does, and weights that are bfloat16 themselves, which do less work.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from train.config import OptimizerConfig
from train.measure_training import LEARNING_RATE, WARM_UP


def measure_peer(
    weights: Path,
    batch: dict[str, np.ndarray],
    optimizer_config: OptimizerConfig,
    *,
    compute_dtype: str,
    param_dtype: str,
    num_steps: int,
) -> dict[str, Any]:
    """Steps of the model in the Hugging Face folder `weights` on `batch` int32 `[A, B, T]`.

    Returns `side`, `seconds` of every counted step, `step_seconds_p50`, `tokens_per_second` and
    `losses` of all steps, as `measure_training` does.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForCausalLM.from_pretrained(
        weights, dtype=getattr(torch, param_dtype), attn_implementation="sdpa"
    ).train()
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for p in model.parameters() if p.ndim > 1],
                "weight_decay": optimizer_config.weight_decay,
            },
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        betas=(optimizer_config.beta1, optimizer_config.beta2),
        eps=optimizer_config.epsilon,
        fused=True,
    )
    autocast = (
        torch.autocast("cpu", getattr(torch, compute_dtype))
        if compute_dtype != param_dtype
        else contextlib.nullcontext()
    )
    micro_batches = [
        _inputs({name: array[index] for name, array in batch.items()})
        for index in range(len(batch["tokens"]))
    ]
    num_targets = int(batch["loss_mask"].sum())
    losses, seconds = [], []
    for _ in range(WARM_UP + num_steps):
        began = time.perf_counter()
        loss = 0.0
        for inputs, targets in micro_batches:
            with autocast:
                logits = model(**inputs, use_cache=False).logits
            total = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten(), reduction="sum"
            )
            (total / num_targets).backward()
            loss += total.item() / num_targets
        torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer_config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
        losses.append(loss)
    counted = seconds[WARM_UP:]
    middle = float(np.median(counted))
    how = ", autocast" if compute_dtype != param_dtype else ""
    return {
        "side": f"transformers{how}",
        "seconds": counted,
        "step_seconds_p50": middle,
        "tokens_per_second": batch["tokens"].size / middle,
        "losses": losses,
    }


def _inputs(batch: dict[str, np.ndarray]):
    """Keyword arguments of the model and targets, for one micro-batch `[B, T]`."""
    import torch

    tokens = torch.from_numpy(batch["tokens"]).long()
    targets = torch.from_numpy(batch["targets"]).long()
    targets = targets.masked_fill(~torch.from_numpy(batch["loss_mask"]), -100)
    segments = torch.from_numpy(batch["segment_ids"])
    if bool((segments == 1).all()):
        return {"input_ids": tokens}, targets
    same = segments[:, :, None] == segments[:, None, :]
    order = torch.arange(tokens.shape[1])
    mask = (same & (order[:, None] >= order[None, :]))[:, None]
    return (
        {
            "input_ids": tokens,
            "attention_mask": mask,
            "position_ids": order - same.int().argmax(-1),
        },
        targets,
    )
