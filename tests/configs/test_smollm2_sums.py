"""The rounds of SmolLM2 on sums: every command line of theirs is one."""

from pathlib import Path

from configs.smollm2_sums import smollm2_sums
from train.rounds.check_commands import check_commands
from train.rounds.plan import final_model, plan


def test_every_command_line_can_be_read():
    steps = plan(smollm2_sums(), Path("runs/sums"))
    check_commands(steps)
    assert final_model(smollm2_sums(), Path("runs/sums")) == "runs/sums/round-2/sft/weights"
