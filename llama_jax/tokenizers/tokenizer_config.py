"""`tokenizer_config.json` and `special_tokens_map.json`: what a tokenizer's special tokens are for.

transformers 5 reads the first; older releases, and other programs, also the second.
"""

import json
from collections.abc import Mapping
from typing import Any


def tokenizer_config_files(
    roles: Mapping[str, str],
    *,
    tokenizer_class: str,
    add_bos: bool,
    model_max_length: int | None,
    chat_template: str | None,
) -> dict[str, bytes]:
    """Name -> content of the two files.

    Args:
      roles: `bos_token`, `eos_token`, `unk_token`, `pad_token`, as far as there are -> their texts.
      tokenizer_class: the class of transformers that reads the folder.
      add_bos: that class puts BOS before a text. (`PreTrainedTokenizerFast` reads this from
        `tokenizer.json` only, so both must agree.)
      model_max_length: the model's context in tokens, or None to say nothing of it.
      chat_template: Jinja source, or None.
    """
    config: dict[str, Any] = {
        **roles,
        # Decoding gives the text of the ids, with no space taken away before punctuation.
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "add_bos_token": add_bos,
        "tokenizer_class": tokenizer_class,
    }
    if model_max_length is not None:
        config["model_max_length"] = model_max_length
    if chat_template is not None:
        config["chat_template"] = chat_template
    return {
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False).encode("utf-8"),
        "special_tokens_map.json": json.dumps(dict(roles), indent=2, ensure_ascii=False).encode(
            "utf-8"
        ),
    }
