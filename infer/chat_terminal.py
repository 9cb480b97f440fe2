"""`llama-jax chat`: a conversation in the terminal.

Every turn prefills the whole dialog again, since formats may rewrite earlier turns. It is cheap
beside the answer: with SmolLM2 on two CPU cores, 27 prompt tokens take as long as one new token.
The length of the cache comes from the ladder of `generate.py`: most turns compile nothing.
"""

import io
import sys
from typing import TYPE_CHECKING, Literal

import tyro

from infer.cache_dtypes import CacheDtype, cache_dtype_named
from infer.interrupts import Interrupts
from llama_jax.errors import InputError

if TYPE_CHECKING:
    from infer.generate import Generator
    from infer.loaded_model import LoadedModel
    from infer.sampling import SamplingParameters
    from llama_jax.chat import Message

_HELP = (
    "/system TEXT sets the system prompt (no TEXT: none), /reset forgets the dialog, /exit leaves."
)


def chat(
    model: tyro.conf.Positional[str],
    *,
    system: str | None = None,
    max_new_tokens: int = 512,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int = 0,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    kv_cache_dtype: CacheDtype | None = None,
    matmul: Literal["xla", "weight_only_gpu", "weight_only_tpu"] = "xla",
    quiet: bool = False,
) -> None:
    """Talks with a model that is tuned for chat; reads lines from the terminal or from a pipe.

    /system TEXT sets the system prompt, /reset forgets the dialog, /exit (or the end of the input)
    leaves. Ctrl-C stops an answer and keeps what is there of it. A line that cannot be answered is
    left out, and said.

    Example: llama-jax chat llama-8b-instruct --temperature 0.7

    Args:
      model: a checkpoint folder, a .gguf file, or a Hugging Face repository id.
      system: the system prompt.
      max_new_tokens: the longest answer.
      temperature: 0 takes the most likely token always; by default the checkpoint's.
      top_p: keep the likeliest tokens up to this probability; by default the checkpoint's.
      top_k: keep so many of the likeliest tokens, 0 all; by default the checkpoint's.
      seed: of the first answer; the next has one more, and so on.
      dtype: of weights and cache; as stored by default.
      matmul: of quantised weights while decoding; the kernels are for Hopper GPUs and for TPUs, and
        are not yet measured.
      kv_cache_dtype: of keys and values, by default the weights'; int8 and fp8 have a scale for
        each vector.
      quiet: print the answers and errors only.
    """
    from infer.decode_operators import decode_operators_for
    from infer.generate import Generator
    from infer.loaded_model import load_model
    from infer.sampling import override_sampling

    loaded = load_model(model, dtype=dtype)
    if loaded.chat_format is None:
        raise InputError(f"{model}: a base model without a chat format; use llama-jax generate")
    sampling = override_sampling(
        loaded.sampling, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed
    )
    generator = Generator(
        loaded.config,
        loaded.params,
        eos_ids=loaded.eos_ids,
        vocab_size=loaded.tokenizer.vocab_size,
        cache_dtype=cache_dtype_named(kv_cache_dtype),
        decode_steps=4,
        decode_operators=decode_operators_for(
            loaded.params,
            loaded.config,
            matmul=matmul,
            say=lambda line: quiet or print(line, file=sys.stderr),
        ),
    )
    terminal = ChatTerminal(loaded, generator, sampling, max_new_tokens, quiet=quiet)
    terminal.say(f"{model}: chat format {loaded.chat_format.name}, {sampling}. {_HELP}")
    for note in loaded.notes:
        terminal.say(note)
    if system is not None:
        terminal.set_system(system)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A byte that is not UTF-8 spoils its line only, and not what was read ahead with it.
        sys.stdin.reconfigure(errors="surrogateescape")
    terminal.run()


class ChatTerminal:
    """The dialog so far, and the loop that reads a line and prints an answer."""

    def __init__(
        self,
        loaded: "LoadedModel",
        generator: "Generator",
        sampling: "SamplingParameters",
        max_new_tokens: int,
        *,
        quiet: bool,
    ):
        self.loaded = loaded
        self.generator = generator
        self.sampling = sampling
        self.max_new_tokens = max_new_tokens
        self.quiet = quiet
        self.system: list[Message] = []
        self.dialog: list[Message] = []
        self._interrupts = Interrupts()

    def say(self, line: str) -> None:
        """A line that is not the model's, to stderr."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def complain(self, error: InputError) -> None:
        """What is wrong with the line, to stderr, quiet or not."""
        print(f"error: {error}", file=sys.stderr, flush=True)

    def set_system(self, text: str) -> None:
        """Sets the system prompt, or removes it if `text` is empty; the dialog starts anew."""
        from llama_jax.chat import Message

        self.system = [Message("system", text)] if text else []
        self.dialog = []

    def run(self) -> None:
        """Answers line after line until /exit or the end of the input."""
        with self._interrupts.installed():
            while (line := self._read()) is not None and line.split(" ")[0] != "/exit":
                try:
                    self._obey(line)
                except InputError as error:
                    self.complain(error)
                except KeyboardInterrupt:
                    self.say("\nstopped before the answer began")

    def _read(self) -> str | None:
        """The next line, or None at the end of the input."""
        while True:
            try:
                with self._interrupts:
                    return input("> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                return None
            except KeyboardInterrupt:
                self.say("\n/exit leaves")

    def _obey(self, line: str) -> None:
        """Does what a line asks for: a command, or an answer."""
        try:
            line.encode()
        except UnicodeEncodeError:
            raise InputError("the line is not UTF-8 text; type it again") from None
        command, _, argument = line.partition(" ")
        if command == "/reset":
            self.dialog = []
            self.say("the dialog is forgotten")
        elif command == "/system":
            self.set_system(argument.strip())
            self.say("the system prompt is set, the dialog starts anew")
        elif line.startswith("/"):
            self.say(f"no command {command}. {_HELP}")
        elif line:
            self.turn(line)

    def turn(self, text: str) -> None:
        """Answers `text` and keeps both in the dialog; without an answer, neither."""
        from llama_jax.chat import Message

        dialog = [*self.dialog, Message("user", text)]
        tokens = self.loaded.chat_format.encode_prompt([*self.system, *dialog])
        room = self.loaded.config.context_length - len(tokens)
        if room < 1:
            self.say(
                f"the context is full: with this message the dialog has {len(tokens)} tokens of "
                f"{self.loaded.config.context_length}. /reset forgets it"
            )
            return
        answer, is_cut = self._answer(tokens, min(self.max_new_tokens, room))
        self.dialog = [*dialog, Message("assistant", answer)]
        if is_cut:
            full = room <= self.max_new_tokens
            self.say("(the context is full: /reset)" if full else "(cut at --max-new-tokens)")

    def _answer(self, tokens: list[int], limit: int) -> tuple[str, bool]:
        """Prints the answer as it comes; its text, and whether the limit cut it."""
        from llama_jax.tokenizers.incremental_decoder import IncrementalDecoder

        decoder = IncrementalDecoder(self.loaded.tokenizer, skip_special=True)
        parts: list[str] = []
        num_tokens, is_stopped = 0, False
        sampling = self._next_sampling()
        stream = self.generator.stream([tokens], max_new_tokens=limit, sampling=sampling)
        try:
            with self._interrupts:
                for (new_tokens,) in stream:
                    num_tokens += len(new_tokens)
                    is_stopped = new_tokens[-1] in self.loaded.eos_ids
                    text = new_tokens[:-1] if is_stopped else new_tokens
                    parts.append("".join(decoder.push(token) for token in text))
                    print(parts[-1], end="", flush=True)
        except KeyboardInterrupt:
            if not parts:
                raise
            is_stopped = True
        parts.append(decoder.finish())
        print(parts[-1], flush=True)
        return "".join(parts), num_tokens == limit and not is_stopped

    def _next_sampling(self) -> "SamplingParameters":
        """A seed for every answer, so that the same question may get another one."""
        import dataclasses

        sampling = self.sampling
        self.sampling = dataclasses.replace(sampling, seed=(sampling.seed + 1) % 2**32)
        return sampling
