"""What the command line refuses, before anything is loaded."""

import pytest

from llama_jax.__main__ import main


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--repetitions", "0"], "--repetitions"),
        (["--new-tokens", "0"], "--new-tokens"),
        (["--concurrencies", "4", "0"], "--concurrencies"),
        (["--concurrencies"], "--concurrencies"),
        (["--shortest", "9", "--longest", "8"], "--longest 8"),
        (["--suites"], "--suites"),
        (["--server", "http://127.0.0.1:1/v1"], "NAME=http"),
        (["--output", "/nowhere/x.json"], "/nowhere/x.json"),
    ],
)
def test_bad_arguments(base_checkpoint, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "infer", str(base_checkpoint), *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_named(base_checkpoint, capsys, monkeypatch):
    import infer.benchmark.command as command

    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["bench", "infer", str(base_checkpoint), "--peers", "llama.cpp"])
    assert "'.[bench]'" in capsys.readouterr().err
