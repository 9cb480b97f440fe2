"""A small task for post-training: answer with exclamation marks. Data in all three kinds, a model
with a byte for a token, and a run of each stage."""

import dataclasses
import json
import shutil
from pathlib import Path

from configs.shakespeare import write_byte_tokenizer
from configs.tiny_cpu import tiny_cpu
from sharding.mesh import MeshShape
from train.config import CheckpointConfig, EvaluationSet, OptimizerConfig, RunConfig, Source
from train.data.examples.example_settings import ExampleSettings
from train.data.examples.prepare_examples import prepare_examples
from train.losses.dpo import Dpo
from train.schedules import WarmupCosine
from train.stages.dpo import dpo_stage
from train.stages.reward_model import reward_model_stage
from train.stages.sft import sft_stage

CHATML = Path(__file__).parents[1] / "chat" / "templates" / "chatml.jinja"
ROW_LENGTH = 384
MODEL = dataclasses.replace(
    tiny_cpu().model,
    num_layers=2,
    model_dim=32,
    head_dim=8,
    feed_forward_dim=64,
    context_length=ROW_LENGTH,
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_tokenizer(folder: Path) -> None:
    """A byte is a token; beside them the two marks of ChatML, and its template."""
    write_byte_tokenizer(folder)
    path = folder / "tokenizer.json"
    fields = json.loads(path.read_text())
    for i, text in enumerate(("<|im_start|>", "<|im_end|>")):
        fields["added_tokens"].append({**fields["added_tokens"][0], "id": 258 + i, "content": text})
    path.write_text(json.dumps(fields))
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    shutil.copy(CHATML, folder / "chat_template.jinja")


def preferences(letters: str) -> list[dict]:
    """A right answer, one that is half right, and a wrong one."""
    return [
        {
            "messages": [{"role": "user", "content": letter}],
            "edited": letter + "!!",
            "chosen": letter + "!?",
            "rejected": letter + "??",
        }
        for letter in letters
    ]


def write_data(folder: Path) -> None:
    """Tokenizer, lines and rows of dialogs, pairs and groups, and of each some held out."""
    write_tokenizer(folder / "tokenizer")
    for part, letters in (("train", LETTERS * 4), ("held_out", LETTERS[::3])):
        compared = preferences(letters)
        dialogs = [
            {"messages": [*line["messages"], {"role": "assistant", "content": line["edited"]}]}
            for line in compared
        ]
        for kind, lines in {"dialogs": dialogs, "pairs": compared, "groups": compared}.items():
            path = folder / f"{kind}_{part}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            settings = ExampleSettings(
                kind=kind,
                tokenizer=str(folder / "tokenizer"),
                chat_format="template",
                today=None,
                row_length=ROW_LENGTH,
            )
            prepare_examples([str(path)], settings, output=folder / f"{kind}_{part}", workers=1)


def _run(folder: Path, name: str, stage, kind: str, **fields) -> RunConfig:
    held_out = EvaluationSet("unseen", str(folder / f"{kind}_held_out"), num_rows=1, batch_rows=2)
    return RunConfig(
        output=str(folder / name),
        model=MODEL,
        tokenizer=str(folder / "tokenizer"),
        stages=(stage,),
        checkpoint=CheckpointConfig(every_steps=100, keep=1),
        optimizer=OptimizerConfig(weight_decay=0.0),
        mesh=MeshShape(fsdp=2),
        compute_dtype="float32",
        remat="none",
        evaluations=(held_out,),
        **fields,
    )


def _shape(folder: Path, kind: str, num_steps: int, peak: float) -> dict:
    return {
        "num_steps": num_steps,
        "row_length": ROW_LENGTH,
        "rows": 4,
        "mixture": (Source(kind, str(folder / f"{kind}_train"), 1.0),),
        "learning_rate": WarmupCosine(peak, peak / 10, warmup_steps=2, decay_steps=num_steps),
    }


def sft(folder: Path, num_steps: int = 12) -> RunConfig:
    """From random weights."""
    return _run(folder, "sft", sft_stage(**_shape(folder, "dialogs", num_steps, 1e-2)), "dialogs")


def dpo(folder: Path, num_steps: int = 8, loss: Dpo = Dpo()) -> RunConfig:  # noqa: B008
    """From the weights of `sft`."""
    stage = dpo_stage(**_shape(folder, "pairs", num_steps, 5e-3), loss=loss)
    return _run(folder, "dpo", stage, "pairs", initial_weights=str(folder / "sft" / "weights"))


def reward_model(folder: Path, num_steps: int = 20) -> RunConfig:
    """From the weights of `sft`."""
    stage = reward_model_stage(**_shape(folder, "groups", num_steps, 1e-2))
    run = _run(folder, "reward", stage, "groups", initial_weights=str(folder / "sft" / "weights"))
    return dataclasses.replace(run, model=dataclasses.replace(MODEL, reward_head=True))


def dpo_here() -> RunConfig:
    """`dpo`, for `llama-jax train chat_runs.py:dpo_here` in the folder of the data."""
    return dpo(Path("."))


def sft_here() -> RunConfig:
    """`sft`, likewise."""
    return sft(Path("."))


def reward_here() -> RunConfig:
    """`reward_model`, likewise."""
    return reward_model(Path("."))
