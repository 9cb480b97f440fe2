"""The six rounds of Llama 3.1 8B: every command line can be read, and nothing is read before it is
written."""

import dataclasses
import inspect
from pathlib import Path

import pytest

from configs.post_training_8b import PostTraining8B, post_training_8b
from llama_jax.errors import InputError
from train.rounds.check_commands import check_commands
from train.rounds.plan import final_model, plan
from train.run_source import function_at, named_rounds

OUTPUT = Path("runs/rounds")


@pytest.fixture(scope="module")
def steps():
    return plan(post_training_8b(), OUTPUT)


def commands(steps, number, program):
    return [
        one.step.command
        for one in steps
        if one.round.number == number and one.step.program == program
    ]


def test_every_command_line_can_be_read(steps):
    """Those of round 6 differ from those of round 2 by paths alone."""
    check_commands([one for one in steps if one.round.number < 3])
    one_seed = plan(dataclasses.replace(post_training_8b(), rounds=1, seeds=(7,)), OUTPUT)
    check_commands([one for one in one_seed if one.step.name.endswith("_average")])


def test_what_a_step_reads_was_written_or_is_given(steps):
    written: set[str] = set()
    for one in steps:
        for word in one.step.command:
            if word.startswith(str(OUTPUT)) and not any(
                output == word or output.startswith(f"{word}/") for output in one.step.outputs
            ):
                assert word in written, f"{one.place} reads {word}"
        written |= set(one.step.outputs)
    assert final_model(post_training_8b(), OUTPUT) in written


def test_rounds_begin_with_the_models_and_data_that_the_paper_says(steps):
    assert {one.round.number for one in steps} == set(range(7))
    base, reward, sft, dpo = "weights/llama31_8b", [], [], []
    for words in commands(steps, 3, "train"):
        kind = {"round_reward_8b": reward, "round_sft_8b": sft, "round_dpo_8b": dpo}[words[2]]
        kind.append(words[words.index("--initial-weights") + 1])
    assert reward == [base] * 2 and sft == [base] * 2 and dpo == ["runs/rounds/round-3/sft"] * 2
    (sample, *_) = commands(steps, 3, "batch")
    assert sample[2] == "runs/rounds/round-2/policy"
    (dialogs, reward_rows, dpo_rows) = sorted(commands(steps, 3, "data"), key=lambda words: (
        words[2], "dpo" in words))  # fmt: skip
    assert {"data/rounds/1/pairs.jsonl", "data/rounds/3/pairs.jsonl"} < set(reward_rows)
    # Of pairs the latest, of dialogs all.
    assert "data/rounds/2/pairs.jsonl" not in dpo_rows
    assert {"data/rounds/3/pairs.jsonl", "runs/rounds/round-3/pairs.jsonl"} < set(dpo_rows)
    assert {"data/rounds/0/dialogs.jsonl", "runs/rounds/round-1/chosen.jsonl"} < set(dialogs)


@pytest.mark.parametrize("name", named_rounds())
def test_a_docstring_gives_command_hardware_and_time(name):
    text = inspect.getdoc(function_at(named_rounds()[name]))
    for head in ("Command:", "Hardware:", "Time:", "Expected result:"):
        assert f"\n{head}" in text
    assert f"llama-jax post-train {name}" in text


def test_seeds_are_given_once():
    with pytest.raises(InputError, match=r"--seeds \(0, 0\): give at least one, and each once"):
        dataclasses.replace(post_training_8b(), seeds=(0, 0))
    assert isinstance(post_training_8b(), PostTraining8B)
