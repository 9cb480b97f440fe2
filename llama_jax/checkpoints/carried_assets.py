"""What is added to a checkpoint's assets so that the target folder is complete.

Meta's folder has a tokenizer as a rank file and no generation defaults. Whoever answers prompts
needs to know where to stop, and Hugging Face's library wants a `tokenizer.json`; both follow from
Llama 3's fixed special tokens. Whether the model is a base or an Instruct model does not stand in
Meta's files: the chat template, which only Instruct models understand, is added when asked for.
"""

from llama_jax.checkpoints.interface import Assets
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError

CHAT_TEMPLATES = ("llama31",)
# As in the published generation_config.json of Llama 3.1 Instruct: end of text, of message, of
# turn. A base model only ever writes the first. Meta's own script samples with the same numbers.
_LLAMA_31_GENERATION = {
    "bos_token_id": 128_000,
    "eos_token_id": [128_001, 128_008, 128_009],
    "pad_token_id": 128_004,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
}


def carried_assets(
    assets: Assets, *, to: str, config: ModelConfig, chat_template: str | None
) -> Assets:
    """`assets`, and what a checkpoint of format `to` needs beside.

    Args:
      chat_template: one of `CHAT_TEMPLATES`, for tokenizer files that are made here, or None.

    Raises `InputError` if `chat_template` is given where no tokenizer file is made.
    """
    files, generation = dict(assets.files), dict(assets.generation)
    rank_file = _llama3_rank_file(assets)
    if rank_file is not None and not generation:
        generation = _LLAMA_31_GENERATION
    if to == "hf" and rank_file is not None and "tokenizer.json" not in files:
        from llama_jax.tokenizers.llama31_to_huggingface import llama31_to_huggingface

        files |= llama31_to_huggingface(
            rank_file,
            model_max_length=config.context_length,
            eos_token="<|eot_id|>" if chat_template else "<|end_of_text|>",
            chat_template=_template(chat_template),
        )
    elif chat_template is not None:
        raise InputError(
            "--chat-template: only for Hugging Face folders whose tokenizer is made from Meta's "
            "tokenizer.model; leave it out"
        )
    return Assets(files, generation)


def _llama3_rank_file(assets: Assets):
    from pathlib import Path

    from llama_jax.tokenizers.llama31 import NUM_RANKS
    from llama_jax.tokenizers.rank_file import is_rank_file, read_rank_file

    path = assets.files.get("tokenizer.model")
    if not isinstance(path, Path) or not is_rank_file(path):
        return None
    return path if len(read_rank_file(path)) == NUM_RANKS else None


def _template(name: str | None) -> str | None:
    if name is None:
        return None
    if name not in CHAT_TEMPLATES:
        raise InputError(f"--chat-template: {name!r} is not one of {', '.join(CHAT_TEMPLATES)}")

    from llama_jax.chat.llama31_template import LLAMA_31_TEMPLATE

    return LLAMA_31_TEMPLATE
