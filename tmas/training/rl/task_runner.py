"""verl's task runner with :class:`tmas.training.rl.trainer.TMASTrainer` as its synchronous trainer."""

# pyright: reportAttributeAccessIssue=false
# verl and its dependencies have incomplete types.
from __future__ import annotations

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1

_VerlTaskRunner = TaskRunnerV1.__ray_metadata__.modified_class  # the class that @ray.remote wrapped


@ray.remote
class TaskRunner(_VerlTaskRunner):
    """Registers our trainer as ``sync`` in verl's registry, in the Ray actor that it runs in and nowhere else.

    A trainer mode with another name is no alternative: verl tests for ``!= "sync"`` to choose its asynchronous code.
    """

    def run(self, config: DictConfig) -> None:
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        from tmas.training.rl.trainer import TMASTrainer

        TRAINER_REGISTRY["sync"] = TMASTrainer
        super().run(config)
