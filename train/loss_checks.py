"""Whether a loss fits the run: its model, and the model that it compares with."""

from train.config import RunConfig, StageConfig
from train.field_checks import require
from train.losses.distillation import Distillation
from train.losses.loss import Loss


def check_loss(run: RunConfig, stage: StageConfig, place: str) -> None:
    """Of the stage at `place`. Raises `InputError` that names the field to change."""
    loss = stage.loss
    loss.check(f"{place}.loss")
    name = type(loss).__name__
    require(
        loss.of_rewards == run.model.reward_head,
        f"{place}.loss",
        f"{name} trains a {'reward model' if loss.of_rewards else 'policy'}, and "
        f"model.reward_head is {run.model.reward_head}",
    )
    _check_teacher(run, stage, place)
    if loss.reference == "none":
        require(stage.reference is None, f"{place}.reference", f"{name} compares with none")
        return
    # The weights that a later stage begins with are no checkpoint that a user could name.
    begins = run.initial_weights is not None and run.stages[0] is stage
    require(
        begins or stage.reference is not None,
        f"{place}.reference",
        "name the checkpoint of the reference policy; only the first stage has the run's "
        "initial_weights",
    )


def check_own_loss(run: RunConfig, loss: Loss, place: str) -> None:
    """Of a held-out set that is not measured by the loss of the stage under way. Raises alike."""
    loss.check(place)
    same_model = loss.of_rewards == run.model.reward_head
    require(same_model, place, f"is not for a model whose reward_head is {run.model.reward_head}")
    if loss.reference == "none":
        return
    for stage in run.stages:
        has_reference = loss.reference == stage.loss.reference and (
            loss.reference_key == stage.loss.reference_key
        )
        require(
            has_reference,
            place,
            f"{loss.reference} reference, and stage {stage.name} has none such; give none",
        )


def _check_teacher(run: RunConfig, stage: StageConfig, place: str) -> None:
    """Of a stage's loss that has a teacher: whether that predicts the same words in rows as long,
    and whether the mesh divides it."""
    loss, teacher, field = stage.loss, stage.reference_model, f"{place}.reference_model"
    name = type(loss).__name__
    if isinstance(loss, Distillation) and loss.top_k is not None:
        require(
            loss.top_k <= run.model.vocab_size,
            f"{place}.loss.top_k",
            f"{loss.top_k} is over model.vocab_size {run.model.vocab_size}",
        )
    if teacher is None:
        return
    require(loss.has_teacher, field, f"{name} compares with the run's own model; give None")
    given = stage.reference is not None
    require(given, f"{place}.reference", "name the teacher's checkpoint")
    require(not teacher.reward_head, field, "is a reward model, and predicts no words")
    require(
        teacher.vocab_size == run.model.vocab_size,
        field,
        f"its vocab_size {teacher.vocab_size} is not model.vocab_size {run.model.vocab_size}: a "
        "teacher must have the student's tokenizer",
    )
    require(
        stage.row_length <= teacher.context_length,
        field,
        f"its context_length {teacher.context_length} is less than {place}.row_length "
        f"{stage.row_length}",
    )
