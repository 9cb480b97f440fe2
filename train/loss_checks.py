"""Whether a loss fits the run: its model, and the policy that it compares with."""

from train.config import RunConfig, StageConfig
from train.field_checks import require
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
    for stage in run.stages:
        has_reference = loss.reference in ("none", stage.loss.reference)
        require(
            has_reference,
            place,
            f"{loss.reference} reference, and stage {stage.name} has none such; give none",
        )
