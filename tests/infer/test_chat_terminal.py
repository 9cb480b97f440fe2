"""`llama-jax chat` as a user has it: a process of its own, fed through a pipe or a terminal."""

import io
import json
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
from infer.interrupts import Interrupts
from infer.loaded_model import load_model
from infer.sampling import GREEDY
from llama_jax.chat import Message
from llama_jax.errors import InputError

COMMAND = [sys.executable, "-m", "llama_jax", "chat"]
# A background job of a shell ignores Ctrl-C, and so do its children: undone, as in a terminal.
# A fifth of a second between the tokens that come together: an answer of many seconds.
PROGRAM = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from infer.generate import Generator
stream = Generator.stream
def slow_stream(*args, **options):
    for tokens in stream(*args, **options):
        yield tokens
        time.sleep(0.2)
Generator.stream = slow_stream
from llama_jax.__main__ import main
main()
"""


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
    set_input(monkeypatch, b"x" * 300 + b"\nHi\n")
    chat(str(chat_checkpoint), max_new_tokens=3)
    out, err = capsys.readouterr()
    assert "the context is full: with this message the dialog has 30" in err
    assert "cut at --max-new-tokens" in err and out.endswith("\n")


def set_input(monkeypatch, lines: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))


def test_a_bad_line_does_not_end_the_dialog(chat_checkpoint, tmp_path, capsys, monkeypatch):
    """Neither bytes that are not UTF-8 nor a message that the template refuses."""
    for path in chat_checkpoint.iterdir():
        (tmp_path / path.name).symlink_to(path)
    template = json.loads((chat_checkpoint / "tokenizer_config.json").read_text())["chat_template"]
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    (tmp_path / "chat_template.jinja").write_text(refusing + template)
    lines = b"Hi\ncaf\xe9\n/system x\nHi\n/system\nHi\n"
    set_input(monkeypatch, lines)
    chat(str(tmp_path), max_new_tokens=3, quiet=True)
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert "not UTF-8" in first and "no system" in second
    set_input(monkeypatch, b"Hi\n")
    chat(str(tmp_path), max_new_tokens=3, quiet=True)
    assert out == 2 * capsys.readouterr().out


def test_a_second_control_c_is_ignored():
    """One while the first is dealt with, and one outside of any work."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts = Interrupts()
    try:
        with interrupts.installed():
            for _ in range(2):
                with pytest.raises(KeyboardInterrupt), interrupts:
                    signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


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
        deadline, next_press = time.monotonic() + 180, time.monotonic()
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
        while seen.endswith(b"Hi\r\n"):  # until the answer has begun
            assert select.select([master], [], [], 180)[0], "no answer"
            seen += os.read(master, 4096)
        read_until(b"\r\n> ", pressing_control_c=True)
        # An answer that was not stopped would end at the limit.
        assert b"cut at" not in seen
        os.write(master, b"/exit\n")
        assert process.wait(timeout=180) == 0
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
