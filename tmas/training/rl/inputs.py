"""Loads the inputs of a training run for the checks before it: the policy's tokenizer, the row files, the prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import TemplateError
from omegaconf import DictConfig, OmegaConf

from tmas.prompts import BUILT_IN, Prompts
from tmas.records import Message
from tmas.training.rl.model_shape import ModelShape
from tmas.training.rl.settings import REWARD_KEY
from tmas.training.rows import RowFileError, validated_rows


@dataclass(frozen=True)
class Policy:
    """The policy's context length in tokens, its tokenizer, its shape, and the arguments of its chat template."""

    context_length: int
    tokenizer: Any
    shape: ModelShape
    template_arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, config: DictConfig) -> Policy:
        """Load the policy of ``config`` as verl does, except for its weights."""
        from transformers import AutoConfig, AutoTokenizer

        model = config.actor_rollout_ref.model
        policy_config = AutoConfig.from_pretrained(model.path)
        tokenizer = AutoTokenizer.from_pretrained(model.get("tokenizer_path") or model.path)
        if model.get("custom_chat_template"):
            tokenizer.chat_template = model.custom_chat_template
        context_length = policy_config.get_text_config().max_position_embeddings
        arguments: Any = OmegaConf.to_container(config.data.get("apply_chat_template_kwargs") or OmegaConf.create())
        return cls(context_length, tokenizer, ModelShape.from_config(policy_config), arguments)

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Length of a prompt in tokens, chat template included."""
        chat = [message.model_dump() for message in messages]
        given = {**self.template_arguments, "add_generation_prompt": True, "return_dict": False}
        return len(self.tokenizer.apply_chat_template(chat, **given))


def linear_layers(path: str) -> list[str]:
    """Names of the linear layers of the model at ``path``, except for its output layer. No weights are loaded."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    output = model.get_output_embeddings()
    return [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and layer is not output]


@dataclass(frozen=True)
class RowFile:
    """Statistics of a valid row file.

    ``sources``: number of rows by source. ``longest_prompt`` and ``mean_prompt``: in tokens, 0 if there is no policy to
    count with. ``judged``: number of rows whose answers only a judge can check. ``labels``: number of verification rows
    by the label of the candidate (``right`` or ``wrong``).
    """

    path: Path
    sources: Mapping[str, int]
    longest_prompt: int
    judged: int
    labels: Mapping[str, int]
    mean_prompt: float = 0.0

    @property
    def rows(self) -> int:
        return sum(self.sources.values())

    def __str__(self) -> str:
        sources = ", ".join(f"{count:,} {source}" for source, count in sorted(self.sources.items()))
        labels = ", ".join(f"{count:,} {label}" for label, count in sorted(self.labels.items()))
        graded = f"; candidates to verify: {labels}" if labels else ""
        return f"{self.path}: {self.rows:,} rows ({sources}); longest prompt {self.longest_prompt:,} tokens{graded}"


def embed_prompts(config: DictConfig) -> Prompts:
    """Load the prompts in the folder ``config.prompts`` and put their texts into the reward's settings in ``config``.

    The workers that compute rewards may be on machines that do not have the folder. Raises
    :class:`~tmas.prompts.PromptError`.
    """
    prompts = Prompts.load(Path(config.prompts)) if config.get("prompts") else BUILT_IN
    if prompts.replaced and OmegaConf.select(config, REWARD_KEY) is not None:
        OmegaConf.update(config, f"{REWARD_KEY}.prompts", prompts.to_json(), force_add=True)
    return prompts


def embedded_prompts(config: DictConfig) -> Prompts:
    """The prompts that :func:`embed_prompts` put into ``config``, or the built-in prompts."""
    texts = OmegaConf.select(config, f"{REWARD_KEY}.prompts")
    return Prompts.from_json(texts) if texts else BUILT_IN


def load_policy(config: DictConfig, defects: list[str]) -> Policy | None:
    """Load the policy of ``config``. If that fails, append the reason to ``defects`` and return None."""
    path = config.actor_rollout_ref.model.path
    try:
        _check_folder(path)
        return Policy.load(config)
    except (OSError, ValueError) as error:
        defects.append(f"policy.path {path}: {str(error).splitlines()[0]}")
        return None


def _check_folder(path: str) -> None:
    """Raise ``FileNotFoundError`` with a remedy if ``path`` cannot be a name on the hub and does not exist."""
    is_folder = path.startswith(("./", "../", "/", "~")) or path.count("/") > 1
    if is_folder and not Path(path).exists():
        raise FileNotFoundError(
            "there is no such folder. Give the folder of a model (with config.json), or a name on the Hugging Face hub"
            " (ORG/NAME)"
        )


def load_files(paths: str | Sequence[str], policy: Policy | None, defects: list[str]) -> list[RowFile]:
    """Check the row files at ``paths``. The defects of invalid files go to ``defects``; these files are left out."""
    found = [_load(Path(path), policy, defects) for path in ([paths] if isinstance(paths, str) else paths)]
    return [file for file in found if file]


def _load(path: Path, policy: Policy | None, defects: list[str]) -> RowFile | None:
    sources: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    judged = 0
    lengths: list[int] = []
    defect: str | None = None
    try:
        for number, row in enumerate(validated_rows(path), 1):
            judged += row.data_source == "math_grm"
            sources[row.extra_info.source] += 1
            if row.truth:
                labels[row.truth.label] += 1
            if defect:
                continue  # count no more tokens, but read on: an invalid row is reported instead of this defect
            try:
                lengths.append(policy.prompt_tokens(row.prompt) if policy else 0)
            except TemplateError as error:
                # Some templates refuse a system message, or two messages of one role in a row.
                defect = f"{path}: row {number}: field prompt: the policy's chat template refuses it: {error}"
    except (RowFileError, OSError) as error:
        defect = str(error)
    if defect:
        defects.append(defect)
        return None
    return RowFile(path, sources, max(lengths, default=0), judged, labels, fmean(lengths) if lengths else 0.0)
