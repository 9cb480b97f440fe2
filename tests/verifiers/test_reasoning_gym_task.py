"""Scorers of reasoning-gym get no program to run, and none of them ends the work."""

import inspect
import re

import pytest
from reasoning_gym.factory import DATASETS

from llama_jax.errors import InputError
from llama_jax.verifiers import ReasoningGymTask
from llama_jax.verifiers.executed_answers import HARMLESS, REFUSED

# It has a parser of its own by that name.
NOT_PYTHON = "propositional_logic"


def test_every_task_that_runs_answers_is_known():
    runs = {
        name
        for name, (dataset, _) in DATASETS.items()
        if re.search(r"\b(eval|exec|parse_expr|sympify)\(", inspect.getsource(dataset.score_answer))
    }
    # Numbers and bits are sorted and computed from the question, not from the answer.
    assert runs - {NOT_PYTHON, "number_sorting"} == {*HARMLESS, *REFUSED} - {"composite"}


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_answers_are_not_run(name, tmp_path):
    task, path = ReasoningGymTask(name, 3, 3), tmp_path / "run"
    for index in range(3):
        assert task.score(index, task.question(index).answer) == 1
        assert task.score(index, f"[open({str(path)!r}, 'w')]") == 0
    assert not path.exists()
    assert task.score(0, "9**9**9**9") < 1


def test_lists_are_partly_right_as_before():
    task = ReasoningGymTask("spiral_matrix", 3, 1)
    numbers = task.question(0).answer.split()
    assert task.score(0, f"[{', '.join(numbers)}]") == pytest.approx(0.1)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_tasks_whose_right_answers_look_like_programs_are_refused(name):
    with pytest.raises(InputError, match="runs answers as Python"):
        ReasoningGymTask(name, 0, 1).question(0)


@pytest.mark.parametrize("name", ["prime_factorization", "boxnet", "game_of_life"])
@pytest.mark.parametrize("text", ["", "hello", "null", "{}", "[[1],[2,3]]", "-1e999", "9" * 30])
def test_what_a_scorer_cannot_read_is_wrong(name, text):
    assert ReasoningGymTask(name, 0, 1).score(0, text) < 1
