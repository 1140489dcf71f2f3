"""verl's task runner, with :class:`tmas.training.rl.trainer.TMASTrainer` as its synchronous trainer."""

# pyright: reportAttributeAccessIssue=false
# verl and what it rests on are typed loosely.
from __future__ import annotations

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1

_VerlTaskRunner = TaskRunnerV1.__ray_metadata__.modified_class  # the class under @ray.remote


@ray.remote
class TaskRunner(_VerlTaskRunner):
    """Runs in its own actor. The trainer takes the place of ``sync`` in verl's registry, there alone: a trainer mode of
    another name would send verl down its asynchronous paths, which test for ``!= "sync"``."""

    def run(self, config: DictConfig) -> None:
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        from tmas.training.rl.trainer import TMASTrainer

        TRAINER_REGISTRY["sync"] = TMASTrainer
        super().run(config)
