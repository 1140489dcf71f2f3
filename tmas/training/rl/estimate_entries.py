"""Shows the estimate of a training step (:mod:`tmas.training.rl.estimate`) as pairs of a label and a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

from tmas.training.rl.checks import device_count
from tmas.training.rl.estimate import (
    FP32,
    GB,
    EstimateSettings,
    Generation,
    Workload,
    checkpoint_bytes,
    generation,
    log_prob_memory,
    shards,
    trained_parameters,
    training_memory,
    training_time,
    workload,
)
from tmas.training.rl.inputs import RowFile
from tmas.training.rl.model_shape import ModelShape
from tmas.training.rl.worker_checks import replica_devices, uses_critic, uses_reference

_NO_MEMORY = "unknown: estimate.memory_gb is not set"


def estimate_entries(
    config: DictConfig,
    shape: ModelShape,
    settings: EstimateSettings,
    train: Sequence[RowFile],
    validation: Sequence[RowFile],
) -> Iterator[tuple[str, str]]:
    """Yield the estimate of a step of ``config`` with a policy of this shape. ``train`` and ``validation`` may be
    empty."""
    work = workload(config, settings, train)
    made = generation(config, shape, settings, work)
    yield "estimate", f"{device_count(config)} x {settings.device} (docs/estimate.md has the formulas)"
    active = f", {_count(shape.active_parameters)} active per token" if shape.experts else ""
    trained = trained_parameters(config, shape)
    adapter = f"; LoRA trains only its adapter of {_count(trained)}" if trained < shape.parameters else ""
    yield "parameters", f"{_count(shape.parameters)}{active}{adapter}"
    yield (
        "assumed",
        f"a mean prompt of {work.prompt:,.0f} tokens and a mean response of {work.response:,.0f}"
        " (estimate.response_tokens)",
    )
    tokens = f"{work.tokens:,.0f}, of which {work.responses * work.response:,.0f} are generated"
    dropped = "; more are generated for the prompts that dynamic sampling drops, and they are not counted here"
    filtered = OmegaConf.select(config, "algorithm.filter_groups.enable")
    yield "tokens per step", tokens + (dropped if filtered else "")
    if work.judge_calls is not None:
        yield "judge", f"up to {work.judge_calls:,.0f} questions per step, if all answers are right"
    yield from _times(config, shape, settings, work, made)
    yield from _validation(config, shape, settings, work, validation)
    yield from _memory(config, shape, settings, work, made)
    size, kept = checkpoint_bytes(config, shape) / GB, config.trainer.max_actor_ckpt_to_keep
    yield "checkpoint", f"{_gb(size)}" + (f"; {_gb(kept * size)} for the last {kept}" if kept else "; all are kept")


def _times(
    config: DictConfig, shape: ModelShape, settings: EstimateSettings, work: Workload, made: Generation
) -> Iterator[tuple[str, str]]:
    times = training_time(config, shape, settings, work)
    at_once = _NO_MEMORY if made.concurrency is None else f"{made.concurrency:,.0f} responses at once on each replica"
    if times is None or made.seconds is None or made.tokens_per_second is None:
        yield "generation", at_once
        needed = ["tflops", "memory_bandwidth_gb", *(["memory_gb"] if made.concurrency is None else [])]
        missing = [f"estimate.{name}" for name in needed if getattr(settings, name) is None]
        yield "time per step", f"unknown: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
        return
    parts = {
        "rollout": made.seconds,
        "log-probs": times.log_probs,
        "update": times.update,
        "weight sync": times.sync,
    }
    seconds = sum(parts.values())
    yield "generation", f"{at_once}, {made.tokens_per_second:,.0f} tokens per second in total"
    yield "time per step", f"{_time(seconds)}: {', '.join(f'{name} {_time(part)}' for name, part in parts.items())}"
    if settings.price_per_hour is not None:
        cost = device_count(config) * settings.price_per_hour * seconds / 3600
        steps = config.trainer.total_training_steps
        yield "cost", f"{cost:,.2f} per step" + (f", {cost * steps:,.0f} for {steps:,} steps" if steps else "")


def _validation(
    config: DictConfig, shape: ModelShape, settings: EstimateSettings, work: Workload, files: Sequence[RowFile]
) -> Iterator[tuple[str, str]]:
    """Yield how much a validation generates: ``data.val_max_samples`` rows, or all, ``val_kwargs.n`` times each."""
    rows, limit = sum(file.rows for file in files), config.data.val_max_samples
    if not rows:
        return
    rows = min(rows, limit) if limit and limit > 0 else rows
    samples = config.actor_rollout_ref.rollout.val_kwargs.n
    mean = sum(file.rows * file.mean_prompt for file in files) / sum(file.rows for file in files)
    validated_work = Workload(rows, samples, mean or work.prompt, work.response, work.longest)
    seconds = generation(config, shape, settings, validated_work).seconds
    took = "" if seconds is None else f", {_time(seconds)}"
    often = f"every {config.trainer.test_freq} steps" if config.trainer.test_freq > 0 else "never during training"
    yield "validation", f"{rows:,} rows x {samples} samples{took}, {often}"


def _memory(
    config: DictConfig, shape: ModelShape, settings: EstimateSettings, work: Workload, made: Generation
) -> Iterator[tuple[str, str]]:
    models = ["actor_rollout_ref.model", *(["critic.model"] if uses_critic(config) else [])]
    weights = shape.parameters / shards(config) * len(models) * FP32
    optimizer = sum(trained_parameters(config, shape, model) for model in models) / shards(config) * 2 * FP32
    offload = config.actor_rollout_ref.actor.fsdp_config
    yield "memory of update", _parts(training_memory(config, shape, work), settings)
    yield "memory of log-probs", _parts(log_prob_memory(config, shape, work), settings)
    if made.cache is None:
        yield "memory of rollout", _NO_MEMORY
    else:
        stay = weights * int(not offload.param_offload) + optimizer * int(not offload.optimizer_offload)
        parts = {
            "weights": made.weights,
            "KV cache": made.cache,
            "rest of vLLM": settings.engine_reserve_gb * GB,
            "trainer": stay,
        }
        tokens = made.cache * replica_devices(config) / shape.kv_bytes
        yield "memory of rollout", f"{_parts(parts, settings)}; the cache of a replica holds {tokens:,.0f} tokens"
    host = weights * int(offload.param_offload) + optimizer * int(offload.optimizer_offload)
    with_adapter = trained_parameters(config, shape) < shape.parameters  # then the policy without it is the reference
    if uses_reference(config) and not with_adapter and config.actor_rollout_ref.ref.fsdp_config.param_offload:
        host += shape.parameters / shards(config) * FP32
    host *= config.trainer.n_gpus_per_node
    if host:
        yield "host memory", f"{_gb(host / GB)} per node for offloaded weights and optimizer"


def _parts(parts: Mapping[str, float], settings: EstimateSettings) -> str:
    """The sum of the parts, each part, and whether they fit the device."""
    total = sum(parts.values()) / GB + settings.reserve_gb
    named = {**parts, "reserve": settings.reserve_gb * GB}
    text = f"{_gb(total)} per device: " + ", ".join(f"{name} {size / GB:,.1f}" for name, size in named.items())
    if settings.memory_gb is None:
        return text
    return f"{text}; {'fits' if total <= settings.memory_gb else 'DOES NOT FIT'} {_gb(settings.memory_gb)}"


def _count(number: int) -> str:
    return f"{number / 1e9:.3g} billion" if number >= 1e9 else f"{number / 1e6:.3g} million"


def _gb(size: float) -> str:
    return f"{size:,.0f} GB" if size >= 10 else f"{size:,.3g} GB"


def _time(seconds: float) -> str:
    return f"{seconds / 60:,.1f} min" if seconds >= 60 else f"{seconds:,.1f} s"
