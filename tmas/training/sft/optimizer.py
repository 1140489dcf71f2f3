"""Muon for the matrices of the transformer layers, AdamW for all other parameters, as one torch optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer


def is_muon_parameter(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon trains the parameter: a matrix that is no embedding and no output head, as in DeepSpeed."""
    return parameter.ndim == 2 and not any(part in name.lower() for part in ("embed", "lm_head"))


class MuonWithAdamW(Optimizer):
    """torch's Muon and torch's AdamW as one optimizer, with the parameter groups and the state of both.

    The first parameter group is Muon's. ZeRO cannot shard this optimizer, because ZeRO flattens matrices.
    """

    def __init__(
        self,
        model: nn.Module,
        muon_learning_rate: float,
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        matrices = [parameter for name, parameter in named if is_muon_parameter(name, parameter)]
        others = [parameter for name, parameter in named if not is_muon_parameter(name, parameter)]
        self._muon = Muon(matrices, lr=muon_learning_rate, momentum=0.95, weight_decay=weight_decay)
        self._adamw = AdamW(others, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share_state()

    def _share_state(self) -> None:
        """Make both optimizers use this optimizer's parameter groups and state."""
        self._muon.param_groups, self._adamw.param_groups = self.param_groups[:1], self.param_groups[1:]
        self._muon.state = self._adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share_state()  # loading replaced the groups and the state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self._muon.step()
        self._adamw.step()
