"""Six rounds of post-training of Llama 3.1 8B, as the Llama 3 paper has them."""

from collections.abc import Sequence
from dataclasses import dataclass

from llama_jax.errors import InputError
from train.rounds.post_training import PostTraining, Round
from train.rounds.step import Step

_ROW_LENGTH = 8192


@dataclass(frozen=True)
class PostTraining8B(PostTraining):
    """Rounds of reward model, rejection sampling, SFT, DPO, and what they came to.

    Attributes:
      guard: a Llama Guard 3 checkpoint, which judges answers to harmful questions.
      data: the folder with what people wrote, see `post_training_8b`.
      seeds: each stage is trained once with each, and the results are averaged.
      minimum_gap: between the reward model's scores of the two answers of a pair.
      licence: of the answers, which every selected row carries.
      tasks: what `llama-jax evaluate` asks after each round, beside the held-out questions.
    """

    guard: str
    data: str
    seeds: tuple[int, ...]
    minimum_gap: float
    licence: str
    tasks: tuple[str, ...]

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"--seeds {self.seeds}: give at least one, and each once")

    def opening(self, opening: Round) -> Sequence[Step]:
        """A first policy, from what people wrote; and rows that are held out from all rounds."""
        held_out = f"{self.data}/held_out"
        return (
            self._dialogs(opening, "held_out_sft", [f"{held_out}/dialogs.jsonl"]),
            self._preferences(opening, "reward", "held_out_reward", [f"{held_out}/pairs.jsonl"]),
            self._preferences(opening, "dpo", "held_out_dpo", [f"{held_out}/pairs.jsonl"]),
            self._dialogs(opening, "sft_rows", [f"{self.data}/0/dialogs.jsonl"]),
            *self._trained(opening, "sft", initial=self.base, result="policy"),
            *self._measured(opening),
        )

    def round_steps(self, round: Round) -> Sequence[Step]:
        questions = f"{self.data}/{round.number}/questions.jsonl"
        answers, scores = round.path("answers.jsonl"), round.path("scores.jsonl")
        chosen, pairs = round.path("chosen.jsonl"), round.path("pairs.jsonl")
        safety = f"{self.data}/safety.jsonl"
        return (
            # The reward model learns from all that people have preferred so far.
            self._preferences(
                round, "reward", "reward_rows", [*self._written(round, "pairs.jsonl"), safety]
            ),
            *self._trained(round, "reward", initial=self.base, result="reward"),
            # Rejection sampling: the rows say how many answers, `"n": 10` to 30.
            self._answers(round, "sample", round.policy, questions, answers),
            Step(
                "score",
                ("llama-jax", "score", round.path("reward"), answers, scores,
                 "--questions", questions, "--dtype", "bfloat16", "--overwrite"),
                outputs=(scores,),
            ),
            Step(
                "select",
                ("llama-jax", "select", answers, "--questions", questions, "--scores", scores,
                 "--licence", self.licence, "--sft", chosen, "--preferences", pairs,
                 "--minimum-gap", self.minimum_gap, "--overwrite"),
                outputs=(chosen, pairs),
            ),
            # SFT begins with the pretrained model, DPO with what SFT has made of it.
            self._dialogs(
                round, "sft_rows",
                [f"{self.data}/0/dialogs.jsonl", *self._written(round, "dialogs.jsonl"),
                 *round.so_far("chosen.jsonl")],
            ),
            *self._trained(round, "sft", initial=self.base, result="sft"),
            self._preferences(
                round, "dpo", "dpo_rows",
                [f"{self.data}/{round.number}/pairs.jsonl", safety, pairs],
            ),
            *self._trained(round, "dpo", initial=round.path("sft"), result="policy"),
            *self._measured(round),
        )  # fmt: skip

    def _written(self, round: Round, name: str) -> list[str]:
        """What people wrote for this round and for those before it."""
        return [f"{self.data}/{number}/{name}" for number in range(1, round.number + 1)]

    def _dialogs(self, round: Round, name: str, files: list[str]) -> Step:
        output = round.path(name)
        command = ("llama-jax", "data", "dialogs", *files)
        return Step(name, (*command, *self._rows(output)), outputs=(output,))

    def _preferences(self, round: Round, goal: str, name: str, files: list[str]) -> Step:
        output = round.path(name)
        command = ("llama-jax", "data", "preferences", *files, "--for", goal)
        return Step(name, (*command, *self._rows(output)), outputs=(output,))

    def _rows(self, output: str) -> tuple[str, ...]:
        shape = ("--tokenizer", self.base, "--row-length", str(_ROW_LENGTH))
        return (*shape, "--output", output, "--overwrite")

    def _trained(self, round: Round, name: str, *, initial: str, result: str) -> list[Step]:
        """A training with each seed, and their average at `result`."""
        trained = []
        for seed in self.seeds:
            output = round.path(f"{name}_seed_{seed}")
            command = (
                "llama-jax", "train", f"round_{name}_8b", "--output", output, "--seed", seed,
                "--tokenizer", self.base, "--initial-weights", initial,
                "--stages.0.mixture.0.path", round.path(f"{name}_rows"),
                "--evaluations.0.path", round.path(f"held_out_{name}", of=0),
            )  # fmt: skip
            trained.append(Step(f"{name}_seed_{seed}", command, outputs=(f"{output}/weights",)))
        weights = [step.outputs[0] for step in trained]
        command = ("average",) if len(weights) > 1 else ("convert", "--to", "orbax")
        together = ("llama-jax", *command, *weights, round.path(result), "--overwrite")
        return [*trained, Step(f"{name}_average", together, outputs=(round.path(result),))]

    def _answers(self, round: Round, name: str, model: str, questions: str, answers: str) -> Step:
        """Questions that could not be asked are counted and lost, and no reason to stop."""
        command = ("llama-jax", "batch", model, questions, answers, "--seed", round.number,
                   "--max-new-tokens", 2048, "--dtype", "bfloat16")  # fmt: skip
        return Step(name, command, outputs=(answers,), accepts=(0, 1))

    def _measured(self, round: Round) -> list[Step]:
        """What the round's model knows; how often it refuses what it should and what it should not,
        and how often it says what the guard calls unsafe."""
        model, evaluation = self.model_of(round), round.path("evaluation")
        held_out = f"{self.data}/held_out"
        questions = f"{held_out}/safety_questions.jsonl"
        answers, rows = round.path("safety_answers.jsonl"), round.path("safety_rows.jsonl")
        verdicts, rates = round.path("safety_verdicts.jsonl"), round.path("refusals.json")
        refusals = ("llama-jax", "refusals", answers, "--questions", questions, "--overwrite")
        return [
            Step(
                "evaluate",
                ("llama-jax", "evaluate", model, f"{held_out}/questions.jsonl", *self.tasks,
                 "--output", evaluation, "--dtype", "bfloat16"),
                outputs=(f"{evaluation}/results.json",),
                results=f"{evaluation}/results.json",
            ),
            self._answers(round, "safety_answers", model, questions, answers),
            Step("safety_rows", (*refusals, "--guard-rows", rows), outputs=(rows,)),
            Step(
                "safety_verdicts",
                ("llama-jax", "guard", self.guard, rows, verdicts, "--dtype", "bfloat16"),
                outputs=(verdicts,),
            ),
            Step(
                "refusals",
                (*refusals, "--answer-verdicts", verdicts, "--output", rates),
                outputs=(rates,),
                results=rates,
            ),
        ]  # fmt: skip


def post_training_8b() -> PostTraining8B:
    """Llama 3.1 8B: six rounds of reward model, rejection sampling, SFT and DPO.

    Command: `llama-jax post-train post_training_8b runs/rounds`, in a folder with
      `weights/llama31_8b`, Meta's pretrained checkpoint or what `llama-jax convert` makes of it
      (with Meta's `tokenizer.model`, all commands speak Llama 3.1's chat format);
      `weights/llama_guard_3_8b`; and `data/rounds`:
        `0/dialogs.jsonl`, the dialogs to begin with;
        `R/questions.jsonl` for each round R from 1, rows of a batch job with `"n": 10` to 30;
        `R/dialogs.jsonl` and `R/pairs.jsonl`, what people wrote and preferred since the round
          before, the answers being those of its model;
        `safety.jsonl`, preferences for safe answers over unsafe ones, and for helpful answers over
          needless refusals;
        `held_out/`: `dialogs.jsonl`, `pairs.jsonl`, `questions.jsonl`, and `safety_questions.jsonl`
          with `"metadata": {"harmful": ...}` in each row.
      Where people answer between the rounds, `--until round-1` ends after the first; the same
      command without it goes on.
    Hardware: TPU v5p:2x2x4, 16 chips, for what is trained: on a pod add `--launch train "srun"
      batch "srun"`. What else is run, and the command itself, need one host with one chip for a
      model of 16 GB.
    Time: an estimate, nothing was measured: a round trains for 45 hours on 16 chips, each stage
      twice (`sft_8b`, `reward_8b`, `dpo_8b`).
    Expected result: not measured here.

    Published are the order of the stages, that SFT and the reward model begin with the pretrained
    model each time, that the reward model learns from all preferences and DPO from the latest,
    that answers are sampled from the latest policy, 10 to 30 a prompt, and that models of several
    variants are averaged at each stage (arXiv 2407.21783, sections 4.1 and 4.2). Ours are: the
    policy of round 1, tuned on dialogs alone; that selected answers of all rounds are kept; the
    pairs that the reward model tells apart, beside those of people; that variants differ in their
    seed; and all numbers.
    """
    return PostTraining8B(
        base="weights/llama31_8b",
        rounds=6,
        guard="weights/llama_guard_3_8b",
        data="data/rounds",
        seeds=(0, 1),
        minimum_gap=1.0,
        licence="Llama 3.1 Community License",
        tasks=("mmlu-dev:de",),
    )
