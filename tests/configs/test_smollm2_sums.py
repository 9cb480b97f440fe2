"""Two rounds of post-training from end to end, by the commands that a user would type: a tiny model
that learns to answer yes or no, and SmolLM2, which learns to add."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.smollm2 import smollm2
from configs.smollm2_sums import smollm2_sums
from llama_jax.checkpoints.convert import convert
from llama_jax.checkpoints.load import load_checkpoint
from train.rounds.check_commands import check_commands
from train.rounds.plan import final_model, plan

from .tiny_sums import write_base

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "smollm2_sums.json"
TINY = f"{Path(__file__).parent / 'tiny_sums.py'}:tiny_sums"
QUICK_COMPILATION = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def start(folder, run, *arguments, environment=None):
    one_device = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    environment = (environment or {}) | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": one_device,
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "llama_jax", "post-train", run, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Waits for a process that ends well."""
    _, errors = process.communicate(timeout=3000)
    assert process.returncode == 0, errors


def run_and_kill(folder, run, environment):
    """Both rounds in `whole`; and in `killed` once more from the last training on, which is killed
    after it has saved a checkpoint, and goes on."""
    finish(start(folder, run, "whole", "--until", "round-2/rows", environment=environment))
    shutil.copytree(folder / "whole", folder / "killed")
    process = start(folder, run, "killed", environment=environment)
    training = folder / "killed" / "round-2" / "sft"
    deadline = time.monotonic() + 600
    while not [path for path in training.glob("checkpoints/*") if path.name.isdecimal()]:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    step = int((folder / "killed/.lock").read_text().split()[0])
    os.kill(step, signal.SIGKILL)
    while Path(f"/proc/{step}").exists():
        time.sleep(0.01)
    assert not (training / "weights").exists()
    for output in ("killed", "whole"):
        finish(start(folder, run, output, environment=environment))


def accuracies(folder, output):
    """Of the base model, after SFT, and after each round."""
    places = ("round-0/evaluate-base", "round-0/evaluate", "round-1/evaluate", "round-2/evaluate")
    results = [json.loads((folder / output / one / "results.json").read_text()) for one in places]
    return [one["tasks"]["held_out"]["metrics"]["accuracy"]["mean"] for one in results]


def check_same_weights(folder):
    (_, whole), (_, killed) = (
        load_checkpoint(folder / output / "round-2/sft/weights") for output in ("whole", "killed")
    )
    same = jax.tree.map(lambda left, right: bool(np.array_equal(left, right)), whole, killed)
    assert all(jax.tree.leaves(same))


def texts(path):
    """What is asked in each row of a file."""
    rows = map(json.loads, path.read_text().splitlines())
    return {row["messages"][0]["content"] for row in rows}


def check_held_out_questions_are_in_no_training(folder):
    questions = folder / "whole" / "round-0" / "questions"
    held_out = texts(questions / "held_out.jsonl")
    parts = [texts(questions / f"part-{part}" / "questions.jsonl") for part in (1, 2, 3)]
    assert len(held_out | set.union(*parts)) == len(held_out) + sum(map(len, parts))
    trained = texts(questions / "part-1" / "sft.jsonl")
    for number in (1, 2):
        chosen = texts(folder / "whole" / f"round-{number}" / "chosen.jsonl")
        assert chosen <= parts[number]
        trained |= chosen
    assert not trained & held_out


def test_a_tiny_model_learns_and_killed_it_ends_with_the_same_numbers(tmp_path):
    write_base(tmp_path / "base")
    run_and_kill(tmp_path, TINY, QUICK_COMPILATION)
    before, sft, *rounds = accuracies(tmp_path, "whole")
    # It has learnt what an answer is: three years in four are no leap years.
    assert before == 0 and sft > 0.5 and min(rounds) > 0.5
    assert accuracies(tmp_path, "killed") == [before, sft, *rounds]
    check_same_weights(tmp_path)
    check_held_out_questions_are_in_no_training(tmp_path)


def test_every_command_line_can_be_read():
    steps = plan(smollm2_sums(), Path("runs/sums"))
    check_commands(steps)
    assert final_model(smollm2_sums(), Path("runs/sums")) == "runs/sums/round-2/sft/weights"


@pytest.mark.slow
def test_smollm2_learns_to_add_and_transformers_answers_the_same(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    (tmp_path / "weights").mkdir()
    smollm2(tmp_path / "weights" / "smollm2")
    run_and_kill(tmp_path, "smollm2_sums", {})
    base, sft, first, second = accuracies(tmp_path, "whole")
    spread = json.loads(RESULTS.read_text())["spread"]
    assert sft - base > max(spread.values())
    assert second - sft > max(spread.values())
    assert accuracies(tmp_path, "killed") == [base, sft, first, second]
    check_same_weights(tmp_path)
    check_held_out_questions_are_in_no_training(tmp_path)

    folder = tmp_path / "hf"
    convert(tmp_path / "whole/round-2/sft/weights", folder, to="hf", quiet=True, say=lambda _: None)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    evaluation = tmp_path / "whole/round-2/evaluate"
    asked = [json.loads(line) for line in (evaluation / "rows.jsonl").open()][:40]
    answers = [json.loads(line) for line in (evaluation / "answers.jsonl").open()]
    for question, answer in zip(asked, answers, strict=False):
        prompt = tokenizer.apply_chat_template(
            question["messages"], add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        with torch.inference_mode():
            output = model.generate(prompt, max_new_tokens=8, do_sample=False)
        text = tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)
        assert question["custom_id"] == answer["custom_id"] and text == answer["text"]
