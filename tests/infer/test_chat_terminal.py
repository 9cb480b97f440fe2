"""`llama-jax chat` as a user has it: a process of its own, fed through a pipe or a terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from infer.chat_terminal import ChatTerminal, chat
from infer.generate import Generator
from infer.loaded_model import load_model
from infer.sampling import GREEDY
from llama_jax.chat import Message
from llama_jax.errors import InputError

COMMAND = [sys.executable, "-m", "llama_jax", "chat"]
# A background job of a shell ignores Ctrl-C, and so do its children: undone, as in a terminal.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from llama_jax.__main__ import main; main()"
)


def test_a_dialog_through_a_pipe(chat_checkpoint):
    lines = "Hi\nAnd?\n/reset\nHi\n/nonsense\n/system Short.\nHi\n/exit\nnever read\n"
    run = subprocess.run(
        [*COMMAND, str(chat_checkpoint), "--max-new-tokens", "12"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    loaded = load_model(chat_checkpoint)
    generator = Generator(loaded.config, loaded.params, eos_ids=loaded.eos_ids)

    def answer(*messages):
        prompt = loaded.chat_format.encode_prompt(messages)
        (completion,) = generator.generate([prompt], max_new_tokens=12)
        return loaded.tokenizer.decode(completion.tokens, skip_special=True)

    hi = Message("user", "Hi")
    first = answer(hi)
    second = answer(hi, Message("assistant", first), Message("user", "And?"))
    third = answer(Message("system", "Short."), hi)
    assert run.stdout == "".join(f"{text}\n" for text in (first, second, first, third))
    assert "no command /nonsense" in run.stderr
    assert "the dialog is forgotten" in run.stderr


def test_a_full_context_is_said_and_not_truncated(chat_checkpoint, capsys, monkeypatch):
    lines = iter(["x" * 300, "Hi"])

    def read(_):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    chat(str(chat_checkpoint), max_new_tokens=3)
    out, err = capsys.readouterr()
    assert "the context is full: with this message the dialog has 30" in err
    assert "cut at --max-new-tokens" in err and out.endswith("\n")


def test_control_c_stops_the_answer_and_not_the_program(chat_checkpoint):
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "chat", str(chat_checkpoint), "--max-new-tokens", "200"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    seen = b""

    def read_until(text: bytes, *, pressing_control_c: bool = False) -> None:
        """Ctrl-C is pressed again after five seconds, as people do: Python loses one that comes
        between printing the prompt and waiting for the line."""
        nonlocal seen
        deadline, next_press = time.monotonic() + 60, time.monotonic()
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if pressing_control_c and time.monotonic() >= next_press:
                process.send_signal(signal.SIGINT)
                next_press = time.monotonic() + 5
            if select.select([master], [], [], 1)[0]:
                seen += os.read(master, 4096)

    try:
        read_until(b"/exit leaves.\r\n> ")
        read_until(b"/exit leaves\r\n> ", pressing_control_c=True)
        seen = b""
        os.write(master, b"Hi\n")
        read_until(b"Hi\r\n")
        read_until(b"\r\n> ", pressing_control_c=True)
        os.write(master, b"/exit\n")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_a_stopped_answer_stays_in_the_dialog(chat_checkpoint, capsys):
    """Ctrl-C after the first tokens: what was printed is what the next turn remembers."""
    loaded = load_model(chat_checkpoint)
    generator = Generator(loaded.config, loaded.params, eos_ids=loaded.eos_ids)

    class Stopped:
        def stream(self, prompts, **options):
            yield next(generator.stream(prompts, **options))
            raise KeyboardInterrupt

    terminal = ChatTerminal(loaded, Stopped(), GREEDY, 20, quiet=False)
    terminal.turn("Hi")
    out, err = capsys.readouterr()
    assert terminal.dialog == [Message("user", "Hi"), Message("assistant", out.removesuffix("\n"))]
    assert out.strip() and "cut" not in err


def test_a_base_model_is_refused(base_checkpoint):
    with pytest.raises(InputError, match="base model without a chat format"):
        chat(str(base_checkpoint))
