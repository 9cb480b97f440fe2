"""`llama-jax generate`: prompts to answers, one batch, one answer a prompt."""

import dataclasses
import json as json_format
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from infer.cache_dtypes import CacheDtype, cache_dtype_named
from llama_jax.errors import InputError

if TYPE_CHECKING:
    from infer.generate import Completion, Generator
    from infer.loaded_model import LoadedModel
    from infer.sampling import SamplingParameters
    from infer.text_side import TextSide
    from llama_jax.chat import ChatFormat


def generate(
    model: tyro.conf.Positional[str],
    *,
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    prompt_file: Path | None = None,
    max_new_tokens: int = 128,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    kv_cache_dtype: CacheDtype | None = None,
    matmul: Literal["xla", "weight_only_gpu", "weight_only_tpu"] = "xla",
    format: Literal["auto", "chat", "raw"] = "auto",
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Answers prompts with a model, in batches.

    A model tuned for chat gets each prompt as a user's message; a base model, which is one without
    a chat template, continues the text. Meta's own folders do not say: they count as tuned.

    Example: llama-jax generate llama-8b --prompt "Why is the sky blue?" --max-new-tokens 64

    Args:
      model: a checkpoint folder, a .gguf file, or a Hugging Face repository id.
      prompt: a prompt; give the option again for more.
      prompt_file: one prompt a line, or .jsonl with {"prompt": ...} a line.
      max_new_tokens: the longest answer.
      temperature: 0 takes the most likely token always; by default the checkpoint's.
      top_p: keep the likeliest tokens up to this probability; by default the checkpoint's.
      top_k: keep so many of the likeliest tokens, 0 all; by default the checkpoint's.
      seed: of the first prompt; the next has one more, and so on.
      batch_size: how many prompts are answered at once; draws the same random numbers and, in
        float32, gives the same answers (in bfloat16, up to rounding).
      dtype: of weights and cache; as stored by default.
      matmul: of quantised weights while decoding; the kernels are for Hopper GPUs and for TPUs, and
        are not yet measured.
      kv_cache_dtype: of keys and values, by default the weights'; int8 and fp8 have a scale for
        each vector.
      format: insist on the chat format (Llama 3.1's where there is no template but its special
        tokens) or on raw text.
      json: print one JSON object a prompt.
      quiet: print the answers only.
    """
    prompts = read_prompts(prompt, prompt_file)
    if batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, not {batch_size}")

    from infer.check_prompts import check_prompts
    from infer.decode_operators import decode_operators_for
    from infer.generate import Generator
    from infer.loaded_model import load_model
    from infer.sampling import override_sampling

    start = time.monotonic()
    loaded = load_model(model, dtype=dtype)
    sampling = override_sampling(
        loaded.sampling, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed
    )
    rows = [dataclasses.replace(sampling, seed=(seed + i) % 2**32) for i in range(len(prompts))]
    chat_format = prompt_format(loaded, format)
    tokens = encode_prompts(loaded, prompts, chat_format)
    if not quiet:
        seconds = time.monotonic() - start
        notes = [
            f"{model}: loaded in {seconds:.1f} s, {_said(chat_format, format)}, {rows[0]}",
            *loaded.notes,
        ]
        print(*notes, sep="\n", file=sys.stderr)
    # Someone reads along if there is one prompt: then tokens come four at a time.
    is_streamed = len(prompts) == 1 and not json
    generator = Generator(
        loaded.config,
        loaded.params,
        eos_ids=loaded.eos_ids,
        vocab_size=loaded.tokenizer.vocab_size,
        cache_dtype=cache_dtype_named(kv_cache_dtype),
        decode_steps=4 if is_streamed else 16,
        decode_operators=decode_operators_for(
            loaded.params,
            loaded.config,
            matmul=matmul,
            num_rows=min(batch_size, len(prompts)),
            say=lambda line: quiet or print(line, file=sys.stderr),
        ),
    )
    check_prompts(tokens, [max_new_tokens] * len(tokens), loaded.config)
    start = time.monotonic()
    if is_streamed:
        num_tokens = _print_as_it_comes(loaded, generator, tokens, max_new_tokens, rows)
    else:
        num_tokens = 0
        for first in range(0, len(prompts), batch_size):
            batch = slice(first, first + batch_size)
            completions = generator.generate(
                tokens[batch], max_new_tokens=max_new_tokens, sampling=rows[batch]
            )
            for text, completion in zip(prompts[batch], completions, strict=True):
                answer = loaded.tokenizer.decode(completion.tokens, skip_special=True)
                print(_shown(text, answer, completion, json=json, quiet=quiet), flush=True)
                num_tokens += len(completion.tokens) + (completion.stop_token is not None)
    if not quiet:
        seconds = time.monotonic() - start
        line = f"{num_tokens} tokens in {seconds:.1f} s, {num_tokens / seconds:.1f} tokens/s"
        print(f"{line} (compilation included)", file=sys.stderr)


def read_prompts(prompt: tuple[str, ...], prompt_file: Path | None) -> list[str]:
    """The prompts of the command line. Raises `InputError` if there are none, or both kinds."""
    if bool(prompt) == (prompt_file is not None):
        raise InputError("give either --prompt or --prompt-file")
    if prompt_file is None:
        prompts = list(prompt)
    else:
        try:
            lines = prompt_file.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError:
            raise InputError(f"{prompt_file}: not UTF-8 text; save it as UTF-8") from None
        if prompt_file.suffix == ".jsonl":
            prompts = [
                _prompt_of(line, f"{prompt_file}:{number}")
                for number, line in enumerate(lines, 1)
                if line.strip()
            ]
        else:
            prompts = [line.removesuffix("\r") for line in lines if line.strip()]
        if not prompts:
            raise InputError(f"{prompt_file}: holds no prompt; write one a line")
    for number, text in enumerate(prompts, 1):
        if not text.strip():
            raise InputError(f"{prompt_file or '--prompt'}: prompt {number} is empty")
    return prompts


def prompt_format(
    loaded: "LoadedModel | TextSide", format: Literal["auto", "chat", "raw"]
) -> "ChatFormat | None":
    """The chat format that `--format` asks for, or None for raw text."""
    if format == "raw":
        return None
    if format == "auto" or loaded.chat_format is not None:
        return loaded.chat_format
    from llama_jax.chat import Llama31Format

    try:
        return Llama31Format(loaded.tokenizer)
    except InputError:
        raise InputError(
            "--format chat: a base model, with neither a chat template nor Llama 3.1's special "
            "tokens; use raw"
        ) from None


def encode_prompts(
    loaded: "LoadedModel", prompts: list[str], chat_format: "ChatFormat | None"
) -> list[list[int]]:
    """Ids of each prompt, as a user's message in the chat format or as it is."""
    from llama_jax.chat import Message

    if chat_format is None:
        return [loaded.encode_plain(text) for text in prompts]
    return [chat_format.encode_prompt([Message("user", text)]) for text in prompts]


def _said(chat_format: "ChatFormat | None", format: str) -> str:
    """The format as the user is told it, and where it is an assumption."""
    if chat_format is None:
        return "raw text"
    is_assumed = format == "auto" and chat_format.name == "llama31"
    note = " (assumed, Meta's folders do not say; raw with --format raw)" if is_assumed else ""
    return f"chat format: {chat_format.name}{note}"


def _print_as_it_comes(
    loaded: "LoadedModel",
    generator: "Generator",
    tokens: list[list[int]],
    max_new_tokens: int,
    rows: "list[SamplingParameters]",
) -> int:
    """Streams the one answer to stdout; the number of its tokens."""
    from llama_jax.tokenizers.incremental_decoder import IncrementalDecoder

    decoder = IncrementalDecoder(loaded.tokenizer, skip_special=True)
    num_tokens = 0
    for (new_tokens,) in generator.stream(tokens, max_new_tokens=max_new_tokens, sampling=rows):
        num_tokens += len(new_tokens)
        text = [decoder.push(token) for token in new_tokens if token not in loaded.eos_ids]
        print("".join(text), end="", flush=True)
    print(decoder.finish())
    return num_tokens


def _shown(text: str, answer: str, completion: "Completion", *, json: bool, quiet: bool) -> str:
    if json:
        fields = {
            "prompt": text,
            "text": answer,
            "tokens": completion.tokens,
            "finish_reason": completion.finish_reason,
        }
        return json_format.dumps(fields, ensure_ascii=False)
    return answer if quiet else f"> {text}\n{answer}\n"


def _prompt_of(line: str, place: str) -> str:
    try:
        fields = json_format.loads(line)
    except ValueError:
        raise InputError(f"{place}: not JSON; write one object a line") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("prompt"), str):
        raise InputError(f'{place}: not an object with a text "prompt"')
    if unknown := sorted(fields.keys() - {"prompt"}):
        raise InputError(f"{place}: field {unknown[0]!r} is not supported; take it out")
    return fields["prompt"]
