"""verl's task runner with the trainers of :mod:`tmas.training.rl.trainer`."""

# pyright: reportAttributeAccessIssue=false
# verl and its dependencies have incomplete types.
from __future__ import annotations

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1

_VerlTaskRunner = TaskRunnerV1.__ray_metadata__.modified_class  # the class that @ray.remote wrapped


@ray.remote
class TaskRunner(_VerlTaskRunner):
    """Registers our trainers under verl's own names, in the Ray actor that it runs in and nowhere else.

    Trainer modes with other names are no alternative: verl tests for ``!= "sync"`` to choose its asynchronous code.
    """

    def run(self, config: DictConfig) -> None:
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        from tmas.training.rl.trainer import TMASColocateAsyncTrainer, TMASTrainer

        TRAINER_REGISTRY.update(sync=TMASTrainer, colocate_async=TMASColocateAsyncTrainer)
        super().run(config)
