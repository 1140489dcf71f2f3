"""Estimates a training step before it runs: time, memory per device, judge calls, cost and checkpoints.

It is arithmetic over the composed configuration and the policy's shape; docs/estimate.md derives each formula and says
what it assumes. Sizes are in bytes, times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from tmas.rewards.hybrid import BONUS
from tmas.training.rl.checks import device_count, rollout_replicas
from tmas.training.rl.inputs import RowFile
from tmas.training.rl.model_shape import BF16, ModelShape
from tmas.training.rl.settings import REWARD_KEY, EstimateSettings
from tmas.training.rl.worker_checks import replica_devices, uses_critic, uses_reference

FP32 = 4
GB = 1e9
_FUSED_CHUNK = 512
"""Tokens whose logits exist at once with use_fused_kernels (verl's FusedLinearForPPO)."""


def load_estimate_settings(config: DictConfig, defects: list[str]) -> EstimateSettings | None:
    """Read ``estimate`` in ``config``. If it is invalid, append its defects to ``defects`` and return None."""
    given = OmegaConf.select(config, "estimate")
    try:
        return EstimateSettings.model_validate(OmegaConf.to_container(given) if given else {})
    except ValidationError as error:
        defects += [f"estimate.{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()]
        return None


@dataclass(frozen=True)
class Workload:
    """The work of a training step.

    ``prompts``: their number. ``samples``: responses per prompt. ``prompt`` and ``response``: mean lengths in tokens.
    ``longest``: the limit of a response. ``judge_calls``: the largest possible number of questions to the judge; None
    if the rows are not known.
    """

    prompts: int
    samples: int
    prompt: float
    response: float
    longest: int
    judge_calls: float | None = None

    @property
    def responses(self) -> int:
        return self.prompts * self.samples

    @property
    def length(self) -> float:
        """Mean length of a prompt and its response, S."""
        return self.prompt + self.response

    @property
    def tokens(self) -> float:
        """Tokens that training processes per step."""
        return self.responses * self.length


def workload(config: DictConfig, settings: EstimateSettings, rows: Sequence[RowFile]) -> Workload:
    """The workload of a training step. Without ``rows``, a mean prompt has half of ``data.max_prompt_length``."""
    count = sum(file.rows for file in rows)
    total = sum(file.rows * file.mean_prompt for file in rows)
    judge_calls = None
    if count:
        forms = {source: OmegaConf.select(config, f"{REWARD_KEY}.{bonus}.form") for source, bonus in BONUS.items()}
        bonuses = [source for source, form in forms.items() if form == "judge"]
        questions = sum(file.judged + sum(file.sources.get(source, 0) for source in bonuses) for file in rows)
        passes = OmegaConf.select(config, f"{REWARD_KEY}.judge.passes") or 0
        judge_calls = config.data.train_batch_size * config.actor_rollout_ref.rollout.n * questions / count * passes
    return Workload(
        prompts=config.data.train_batch_size,
        samples=config.actor_rollout_ref.rollout.n,
        prompt=total / count if total else config.data.max_prompt_length / 2,
        response=settings.response_tokens or config.data.max_response_length / 2,
        longest=config.data.max_response_length,
        judge_calls=judge_calls,
    )


# --- generation


@dataclass(frozen=True)
class Generation:
    """Memory and time of the generation of a step. None: unknown, because a setting that it depends on is not set.

    ``weights`` and ``cache``: vLLM's weights and KV cache in bytes per device. ``concurrency``: number of responses
    that a replica generates at once. ``tokens_per_second``: of all replicas together, while each generates
    ``concurrency`` responses. ``seconds``: time of the whole generation, with prefill and the tail of the longest
    responses.
    """

    weights: float
    cache: float | None
    concurrency: float | None
    tokens_per_second: float | None
    seconds: float | None


def generation(config: DictConfig, shape: ModelShape, settings: EstimateSettings, work: Workload) -> Generation:
    """Time and memory of generating ``work``. Decoding is bound by memory bandwidth, prefill by FLOPs."""
    rollout, devices = config.actor_rollout_ref.rollout, replica_devices(config)
    ranks = rollout.data_parallel_size
    replicas = max(1, rollout_replicas(config))
    copied = shape.parameters - shape.expert_parameters  # each rank has a copy; the experts are spread over the ranks
    weights = (copied * ranks + shape.expert_parameters) * BF16 / devices
    cache = _cache_bytes(config, settings, weights)
    if cache is None:
        return Generation(weights, None, None, None, None)
    shared = work.samples if rollout.enable_prefix_caching else 1
    held = work.prompt / shared + work.response / 2  # tokens in the cache for one response, at half of its length
    per_replica = work.responses / replicas
    fitting = cache * devices / shape.kv_bytes / held
    concurrency = max(1.0, min(per_replica, rollout.max_num_seqs * ranks, fitting))
    if settings.memory_bandwidth_gb is None or settings.tflops is None:
        return Generation(weights, cache, concurrency, None, None)
    bandwidth = settings.memory_bandwidth_gb * GB * settings.bandwidth_utilization * devices
    flops = settings.tflops * 1e12 * settings.flops_utilization * devices
    read = work.prompt + work.response / 2  # tokens of the cache that a decoding step reads for each response

    def decoding_seconds(responses: float) -> float:
        moved = shape.weights_read(responses, ranks) + responses * shape.kv_bytes * read
        return max(moved / bandwidth, responses * 2 * shape.active_parameters / flops)

    per_second = concurrency / decoding_seconds(concurrency)
    bulk = per_replica * work.response / per_second
    tail = (work.longest - work.response) * decoding_seconds(ranks)  # one response per rank
    prefill = per_replica / shared * work.prompt * shape.forward_flops(work.prompt) / flops
    return Generation(weights, cache, concurrency, per_second * replicas, bulk + tail + prefill)


def _cache_bytes(config: DictConfig, settings: EstimateSettings, weights: float) -> float | None:
    """Bytes of vLLM's KV cache per device. None if the memory of a device is unknown."""
    if config.trainer.device == "cpu":
        return float(config.env.get("VLLM_CPU_KVCACHE_SPACE", 4)) * 2**30  # vLLM's own setting and default, in GiB
    if settings.memory_gb is None:
        return None
    share = config.actor_rollout_ref.rollout.gpu_memory_utilization * settings.memory_gb * GB
    return max(0.0, share - weights - settings.engine_reserve_gb * GB)


# --- training


def trained_parameters(config: DictConfig, shape: ModelShape, model: str = "actor_rollout_ref.model") -> int:
    """Parameters that training changes: all, or those of the LoRA adapter. ``model``: the key of the model's settings.

    The critic is assumed to have the policy's shape.
    """
    settings = OmegaConf.select(config, model)
    if not settings.get("lora_rank"):
        return shape.parameters
    targets = settings.get("target_modules") or ()
    return shape.adapter_parameters(settings.lora_rank, targets if isinstance(targets, str) else list(targets))


@dataclass(frozen=True)
class TrainingTime:
    """Seconds of the parts of a step after generation. ``sync``: sending weights to vLLM, and offloading."""

    log_probs: float
    update: float
    sync: float


def training_time(
    config: DictConfig, shape: ModelShape, settings: EstimateSettings, work: Workload
) -> TrainingTime | None:
    """Time of the passes over all tokens; each is bound by FLOPs or by FSDP's traffic. None without ``tflops``."""
    if settings.tflops is None:
        return None
    actor, devices = config.actor_rollout_ref.actor, device_count(config)
    forward = work.tokens * shape.forward_flops(work.length)
    flops = devices * settings.tflops * 1e12 * settings.flops_utilization
    rate = _gather_rate(config, settings)
    weights = shape.parameters * BF16
    epochs = {"actor_rollout_ref.model": actor.ppo_epochs}
    if uses_critic(config):
        epochs["critic.model"] = config.critic.ppo_epochs

    def passes(factor: float, traffic: float, tokens_per_device: int) -> float:
        micro_batches = work.tokens / devices / tokens_per_device
        return max(factor * forward / flops, micro_batches * traffic / rate)

    inference, training = _micro_batch_tokens(config, work)

    def update(model: str) -> float:
        """Seconds of an epoch. With LoRA, the backward pass takes half the time: most weights have no gradients."""
        trained = trained_parameters(config, shape, model)
        factor = 3 + int(OmegaConf.select(config, model).enable_gradient_checkpointing)
        return passes(factor - int(trained < shape.parameters), 2 * weights + trained * FP32, training)

    # The passes before the update: the policy's log-probs, those of the reference policy, and the values of the critic.
    forwards = int(computes_log_probs(config)) + int(uses_reference(config)) + len(epochs) - 1
    trained, sharded = trained_parameters(config, shape), shape.parameters / shards(config)
    offloaded = sharded * FP32 * 2 * (1 + forwards if actor.fsdp_config.param_offload else 0)
    offloaded += trained / shards(config) * 2 * FP32 * 2 * int(actor.fsdp_config.optimizer_offload)
    sent = shape.parameters if config.actor_rollout_ref.model.lora.get("merge") else trained
    return TrainingTime(
        log_probs=forwards * passes(1, weights, inference),
        update=sum(count * update(model) for model, count in epochs.items()),
        sync=sent * FP32 / rate + offloaded / (settings.host_link_gb * GB),
    )


def _gather_rate(config: DictConfig, settings: EstimateSettings) -> float:
    """Bytes per second at which every device receives sharded weights: bound by the link or by the nodes' network."""
    nodes, link = config.trainer.nnodes, settings.link_gb * GB
    if nodes == 1:
        return link
    return min(link, settings.network_gb * GB * config.trainer.n_gpus_per_node * nodes / (nodes - 1))


def _micro_batch_tokens(config: DictConfig, work: Workload) -> tuple[int, int]:
    """Tokens per device of a micro batch, without gradients (log-probs) and with."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    if actor.use_dynamic_bsz:
        return rollout.log_prob_max_token_len_per_gpu, actor.ppo_max_token_len_per_gpu
    longest = config.data.max_prompt_length + config.data.max_response_length  # the batch is padded
    return rollout.log_prob_micro_batch_size_per_gpu * longest, actor.ppo_micro_batch_size_per_gpu * longest


def computes_log_probs(config: DictConfig) -> bool:
    """Whether the policy's log-probs are computed again before the update, instead of taken from vLLM."""
    return not OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode")


# --- memory


def shards(config: DictConfig) -> int:
    """Number of devices that share the policy's weights: all, or ``fsdp_size``; then each such group has a copy."""
    devices, group = device_count(config), config.actor_rollout_ref.actor.fsdp_config.fsdp_size
    return group if 0 < group < devices else devices


def training_memory(config: DictConfig, shape: ModelShape, work: Workload) -> Mapping[str, float]:
    """Bytes per device in the update of the actor, by part. vLLM sleeps then."""
    model, sharded = config.actor_rollout_ref.model, shape.parameters / shards(config)
    trained = trained_parameters(config, shape)
    _, tokens = _micro_batch_tokens(config, work)
    gathered = BF16 * (2 * shape.layer + shape.embedding * (1 if shape.tied else 2))  # this layer and the next one
    layer = 2 * tokens * _layer_numbers(shape) * BF16  # values and their gradients
    kept = tokens * shape.hidden * BF16 if model.enable_gradient_checkpointing else layer / 2
    return {
        "weights": sharded * FP32 + gathered,
        "gradients": (trained / shards(config) + trained / shape.parameters * shape.layer) * FP32,
        "optimizer": 2 * trained / shards(config) * FP32,
        "activations": shape.layers * kept + layer,
        "logits": logit_bytes(config, shape, tokens, entropy=bool(config.actor_rollout_ref.actor.entropy_coeff)),
    }


def log_prob_memory(config: DictConfig, shape: ModelShape, work: Workload) -> Mapping[str, float]:
    """Bytes per device while log-probs and entropy are computed, by part. There are no gradients."""
    tokens, _ = _micro_batch_tokens(config, work)
    gathered = BF16 * (2 * shape.layer + shape.embedding * (1 if shape.tied else 2))
    resident = 0 if config.actor_rollout_ref.actor.fsdp_config.optimizer_offload else 2
    return {
        "weights": shape.parameters / shards(config) * FP32 + gathered,
        "optimizer": resident * trained_parameters(config, shape) / shards(config) * FP32,
        "activations": tokens * _layer_numbers(shape) * BF16,
        "logits": logit_bytes(config, shape, tokens, entropy=True),
    }


def logit_bytes(config: DictConfig, shape: ModelShape, tokens: int, *, entropy: bool) -> float:
    """Bytes of logits, and of what the entropy is computed from.

    Logits are in bf16, and their gradient takes their place. Entropy needs the probabilities and their product with
    the logits too; in chunks, these are three fp32 arrays of one chunk. Fused kernels hold four fp32 arrays of one
    chunk instead of everything.
    """
    actor, vocabulary = config.actor_rollout_ref.actor, shape.vocabulary
    if config.actor_rollout_ref.model.use_fused_kernels:
        return 4 * min(tokens, _FUSED_CHUNK) * vocabulary * FP32
    logits = tokens * vocabulary * BF16
    if not entropy:
        return logits
    if actor.entropy_from_logits_with_chunking:
        return logits + 3 * min(tokens, actor.entropy_from_logits_chunk_size) * vocabulary * FP32
    return 3 * logits


def _layer_numbers(shape: ModelShape) -> int:
    """Numbers that a layer computes per token: norms and residuals, queries to output, and the MLP or its experts.

    With experts, a token is copied to each of its experts and back.
    """
    width = shape.intermediate * max(1, shape.experts_per_token)
    copies = 2 * shape.experts_per_token * shape.hidden
    return 4 * shape.hidden + 2 * shape.head_dim * (shape.heads + shape.kv_heads) + 3 * width + copies


def checkpoint_bytes(config: DictConfig, shape: ModelShape) -> float:
    """Bytes of a checkpoint on disk: fp32 weights, two fp32 moments of Adam for those that are trained, and the weights
    in bf16 for Hugging Face. Parts that are not in ``save_contents`` are left out."""

    def size(settings: str, model: str) -> float:
        trained = trained_parameters(config, shape, model)
        adapter = trained if trained < shape.parameters else 0
        parts = {
            "model": (shape.parameters + adapter) * FP32,
            "optimizer": 2 * trained * FP32,
            "hf_model": shape.parameters * BF16,
        }
        return sum(parts.get(part, 0) for part in OmegaConf.select(config, settings).checkpoint.save_contents)

    actor = size("actor_rollout_ref.actor", "actor_rollout_ref.model")
    return actor + (size("critic", "critic.model") if uses_critic(config) else 0)
