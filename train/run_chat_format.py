"""The chat format of a run's dialogs: one for all of them, and that of the tokenizer's folder, so
that the run's weights are talked to as they were taught."""

from datetime import datetime
from pathlib import Path

from llama_jax.chat import ChatFormat, Message, chat_format_for, chat_format_hash
from llama_jax.checkpoints.interface import Assets
from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.interface import Tokenizer
from train.config import RunConfig
from train.data.manifest import read_manifest

_EXAMPLE = [Message("user", "a"), Message("assistant", "b")]


def run_chat_format(run: RunConfig) -> ChatFormat | None:
    """The chat format of all rows that were made of dialogs; None if there are none.

    Raises `InputError` that names the field of data that was written in another format than the
    data before it, or than `run.tokenizer` has.
    """
    sets = [
        (f"stages[{i}].mixture[{j}].path", source.path)
        for i, stage in enumerate(run.stages)
        for j, source in enumerate(stage.mixture)
    ]
    sets += [(f"evaluations[{i}].path", one.path) for i, one in enumerate(run.evaluations)]
    found: ChatFormat | None = None
    for field, path in sets:
        examples = read_manifest(path).examples
        if examples is None:
            continue
        if found is None:
            found = _format_of(run, field)
        if chat_format_hash(found) != examples.chat_format_sha256:
            raise InputError(
                f"{field}: the dialogs of {path} were written by another chat template than "
                f"{run.tokenizer} has; name the tokenizer they were prepared with, or prepare them "
                "again"
            )
    return found


def with_turn_ends(assets: Assets, tokenizer: Tokenizer, chat_format: ChatFormat) -> Assets:
    """`assets` of a model that has learnt `chat_format`: its answers end where a turn does, which a
    base model's generation defaults do not say."""
    told = assets.generation.get("eos_token_id")
    ends = [told] if isinstance(told, int) else list(told or sorted(tokenizer.eos_ids))
    dialog = chat_format.format_dialog(_EXAMPLE, add_generation_prompt=False)
    said = [token for token, counts in zip(dialog.tokens, dialog.loss_mask, strict=True) if counts]
    if said[-1] in ends or said[-1] not in tokenizer.special_tokens.values():
        return assets
    return Assets(assets.files, {**assets.generation, "eos_token_id": [*ends, said[-1]]})


def _format_of(run: RunConfig, field: str) -> ChatFormat:
    """In which the run's weights will be asked."""
    path = Path(run.tokenizer)
    folder = path if path.is_dir() else path.parent
    # Which day it is decides no template's hash.
    found = chat_format_for(folder, load_tokenizer(path), now=lambda: datetime(1970, 1, 1))
    if found is None:
        raise InputError(
            f"{field}: holds dialogs, and tokenizer {path} has no chat template, so nobody could "
            "talk to the weights in their format; put a chat_template.jinja there, and prepare "
            "them again"
        )
    return found
