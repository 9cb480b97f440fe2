"""`python -m configs.reasoning_gym OUT --task NAME --train N --held-out M`: questions for
post-training whose answers a program can mark.

The PyPI package `reasoning-gym` 0.1.25 (Apache-2.0) makes questions of some hundred tasks, each
with its answer and a scorer. Per task:

    OUT/sft.jsonl          question and right answer: rows of SFT
    OUT/preferences.jsonl  the right answer against a wrong one: the right one with a number
                           changed, or the answer to another question
    OUT/questions.jsonl    the same questions as a batch job that samples answers: the model's own
                           right and wrong ones make better rows, through the printed commands
    OUT/held_out.jsonl     questions that are in none of the others, to be answered without chance

With `--parts N` the training questions are dealt into N folders, OUT/part-1 and so on, for rounds
that shall each ask new ones.

Question i of seed s is drawn with s + i, so two seeds that lie near share questions. The held-out
ones are drawn with the numbers that follow the training's, and whatever of the training is asked
there by chance too, as happens in small tasks, is left out of the training.
"""

import importlib.metadata
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tyro

from llama_jax.errors import InputError
from llama_jax.verifiers import ReasoningGymTask
from llama_jax.verifiers.reasoning_gym_task import RIGHT
from llama_jax.whole_file import write_lines

_TRIES = 20
_NUMBER = re.compile(r"\d+")


def export(
    output: tyro.conf.Positional[Path],
    *,
    task: tyro.conf.UseAppendAction[tuple[str, ...]],
    train: int,
    held_out: int,
    seed: int = 0,
    config: str = "{}",
    samples: int = 16,
    temperature: float = 1.0,
    parts: int = 1,
) -> None:
    """Writes questions, answers and pairs of tasks of reasoning-gym, and prints what to do next.

    Example: python -m configs.reasoning_gym data/sums --task chain_sum --train 2000 --held-out 200

    Args:
      output: a folder.
      task: as reasoning-gym calls it; give the option again for more.
      train: questions of each task to train on.
      held_out: questions of each task to measure with.
      seed: of the first question.
      config: JSON object, fields of the tasks' own config, such as '{"max_terms": 3}'.
      samples: answers to each question of questions.jsonl.
      temperature: they are sampled with.
      parts: into how many folders the training questions are dealt, none of them in two.
    """
    if train < 1 or held_out < 1:
        raise InputError("--train and --held-out must be at least 1")
    if not 1 <= parts <= train:
        raise InputError(f"--parts {parts}: must be at least 1, and --train at most")
    if not task or len(set(task)) < len(task):
        raise InputError("--task: give at least one, and each once")
    try:
        fields = json.loads(config)
    except ValueError as error:
        raise InputError(f"--config: not valid JSON ({error})") from None
    if not isinstance(fields, dict) or {"seed", "size"} & fields.keys():
        raise InputError("--config: must be a JSON object without seed and size, which are options")
    output.mkdir(parents=True, exist_ok=True)
    asked: list[dict[str, Any]] = []
    dealt: list[dict[str, list[dict[str, Any]]]] = [
        {"sft": [], "preferences": [], "questions": []} for _ in range(parts)
    ]
    for name in task:
        measured = ReasoningGymTask(name, seed + train, held_out, fields)
        apart = {measured.question(index).text for index in range(held_out)}
        asked += [
            _asked(measured, index, part="held-out", temperature=0) for index in range(held_out)
        ]
        learnt = ReasoningGymTask(name, seed, train, fields)
        for count, index in enumerate(_new_questions(learnt, apart)):
            rows = dealt[count % parts]
            rows["questions"].append(
                _asked(learnt, index, part="train", n=samples, temperature=temperature)
            )
            rows["sft"].append(_sft_row(learnt, index))
            if (wrong := wrong_answer(learnt, index)) is not None:
                rows["preferences"].append(_preference_row(learnt, index, wrong))
    _write(output / "held_out.jsonl", asked)
    folders = [output / f"part-{part + 1}" for part in range(parts)] if parts > 1 else [output]
    for folder, rows in zip(folders, dealt, strict=True):
        folder.mkdir(exist_ok=True)
        for name, some in rows.items():
            _write(folder / f"{name}.jsonl", some)
    for folder in folders:
        print(
            f"llama-jax batch MODEL {folder}/questions.jsonl {folder}/answers.jsonl --format chat\n"
            f"llama-jax verify {folder}/answers.jsonl {folder}/scores.jsonl "
            f"--questions {folder}/questions.jsonl\n"
            f"python -m configs.reasoning_gym_pairs {folder}/answers.jsonl "
            f"--questions {folder}/questions.jsonl --scores {folder}/scores.jsonl "
            f"--licence LICENCE --output {folder}/own-mistakes.jsonl\n"
            f"llama-jax select {folder}/answers.jsonl --questions {folder}/questions.jsonl "
            f"--scores {folder}/scores.jsonl --licence LICENCE --sft {folder}/own-sft.jsonl "
            f"--preferences {folder}/own-preferences.jsonl --minimum-score 1 --minimum-gap 0.5"
        )
    print(f"llama-jax evaluate MODEL {output}/held_out.jsonl --output {output}/evaluation")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))
    print(f"{path}: {len(rows):,} rows", file=sys.stderr)


def wrong_answer(task: ReasoningGymTask, index: int) -> str | None:
    """A wrong answer to a question, as near the right one as is easily had: with a number changed,
    else the answer to another question. None if what was tried is right, or none is left."""
    right = task.question(index).answer
    draw = random.Random(f"{task.seed}:{task.name}:{index}")
    tries: list[Callable[[], str]] = [lambda: task.question(draw.randrange(task.size)).answer]
    if _NUMBER.search(right):
        tries.insert(0, lambda: _with_another_number(right, draw))
    for attempt in tries:
        for _ in range(_TRIES):
            text = attempt()
            if text.strip() and task.score(index, text) < RIGHT:
                return text
    return None


def _with_another_number(text: str, draw: random.Random) -> str:
    """`text` with one number moved by up to 10, or with one digit changed."""
    found = draw.choice(list(_NUMBER.finditer(text)))
    number = found[0]
    place = draw.randrange(len(number))
    digit = str((int(number[place]) + draw.randint(1, 9)) % 10)
    near = str(abs(int(number) + draw.choice((-1, 1)) * draw.randint(1, 10)))
    other = draw.choice((near, number[:place] + digit + number[place + 1 :]))
    return text[: found.start()] + other + text[found.end() :]


def _new_questions(task: ReasoningGymTask, apart: set[str]) -> Iterator[int]:
    """Indices of questions that are not `apart` and did not come before."""
    seen = set(apart)
    for index in range(task.size):
        text = task.question(index).text
        if text not in seen:
            seen.add(text)
            yield index


def _messages(task: ReasoningGymTask, index: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": task.prompt(index)}]


def _asked(task: ReasoningGymTask, index: int, *, part: str, **sampling: Any) -> dict[str, Any]:
    return {
        "custom_id": f"{task.name}-{part}-{index}",
        "messages": _messages(task, index),
        **sampling,
        "metadata": task.metadata(index),
    }


def _sft_row(task: ReasoningGymTask, index: int) -> dict[str, Any]:
    answer = {"role": "assistant", "content": task.question(index).answer}
    messages = [*_messages(task, index), answer]
    return {"messages": messages, "provenance": _provenance(task, index)}


def _preference_row(task: ReasoningGymTask, index: int, wrong: str) -> dict[str, Any]:
    return {
        "messages": _messages(task, index),
        "chosen": task.question(index).answer,
        "rejected": wrong,
        "category": task.name,
        "provenance": _provenance(task, index),
    }


def _provenance(task: ReasoningGymTask, index: int) -> dict[str, Any]:
    version = importlib.metadata.version("reasoning-gym")
    source = {"source": f"reasoning-gym {version}", "licence": "Apache-2.0"}
    return source | task.metadata(index)


if __name__ == "__main__":
    from llama_jax.command_line import bind_arguments

    try:
        bind_arguments(export, prog="python -m configs.reasoning_gym", arguments=sys.argv[1:])()
    except InputError as error:
        sys.exit(f"error: {error}")
