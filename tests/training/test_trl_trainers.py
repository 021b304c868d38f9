"""Every trainer that TRL has, given to `enable`: noise of the stated size where the policy is trained, only there."""

import importlib
import math
import pkgutil
import queue
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
import trl
import trl.experimental
import trl.trainer
from datasets import Dataset
from short_run import short_run
from small_models import same, weights
from test_trainers import PAIRS, RATED, judge, longest

from neft_zoo import NoiseCallback, NoiseError, enable

ALPHA, WIDTH = 20, 32
LOUD = {"name": "neft_uniform", "alpha": ALPHA}
ONLINE = dict(num_generations=2, max_completion_length=4)
PROMPTS = PAIRS.select_columns("prompt")
TRIPLES = PAIRS.map(lambda record: {"reference": record["chosen"] + " then"})
HELPED = PAIRS.map(lambda record: {"privileged_context": record["chosen"]}).remove_columns(["chosen", "rejected"])
ASKED = Dataset.from_list([{"prompt": [{"role": "user", "content": f"Question {i}" + " why" * i}]} for i in range(8)])
TALKS = Dataset.from_list(
    [
        {
            "messages": [
                {"role": "user", "content": f"Question {i}" + " why" * (i % 3)},
                {"role": "assistant", "content": "yes it is" + " so" * i},
            ]
        }
        for i in range(8)
    ]
)


class Teacher:
    """Stands for a server with a teacher: answers with the log-probabilities of a model here."""

    def __init__(self, model):
        self.model = model

    @torch.no_grad()
    def get_sequence_logprobs(self, sequences, prompt_lengths, top_logprobs, temperature):
        answer = {"actual_logprobs": [], "logprobs": [], "logprob_token_ids": []}
        for ids, start in zip(sequences, prompt_lengths, strict=True):
            ids = torch.tensor(ids)
            predicted = (self.model(ids[None]).logits[0] / temperature).log_softmax(-1)[start - 1 : -1]
            top = predicted.topk(top_logprobs)
            answer["actual_logprobs"].append(predicted.gather(-1, ids[start:, None]).tolist())
            answer["logprobs"].append(top.values.tolist())
            answer["logprob_token_ids"].append(top.indices.tolist())
        return answer


class Worker:
    """Stands for the process that makes rollouts: its queue is full of them."""

    def __init__(self, sample):
        self.rollout_buffer, self.metrics_queue = queue.Queue(), queue.Queue()
        for index in range(64):
            self.rollout_buffer.put(sample(index))

    def start(self):
        pass

    stop = start

    def update_model_version(self, model_version):
        pass

    def check_health(self, stale_after_s):
        raise AssertionError("the queue is empty")


TRANSFER = SimpleNamespace(
    init_weight_transfer=lambda: None,
    pause=lambda: None,
    send_weights=lambda iterator: [*iterator],
    resume=lambda: None,
    destroy=lambda: None,
)


def rollout(cls, index, **fields):
    """Return a rollout of one question and one answer."""
    length = 6 + index % 5
    told = dict(
        prompt=[{"role": "user", "content": "q"}],
        completion=[{"role": "assistant", "content": "a"}],
        input_ids=np.arange(5, 5 + length) + index,
        completion_mask=np.arange(length) >= 3,
        model_version=0,
        metrics={},
    )
    return cls(**told, **{name: make(length) for name, make in fields.items()})


def distilled(index):
    from trl.experimental.async_distillation.async_rollout_worker import RolloutSample

    ids = dict(teacher_topk_ids=lambda n: np.tile([5, 6, -1], (n, 1)))
    logprobs = dict(teacher_topk_logprobs=lambda n: np.tile([-1.0, -2.0, -np.inf], (n, 1)).astype(np.float32))
    return rollout(RolloutSample, index, **ids, **logprobs, teacher_id=lambda n: "default", prompt_id=lambda n: index)


def rewarded(index):
    from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

    old = dict(old_log_probs=lambda n: np.full(n, -1.0, dtype=np.float32), advantage=lambda n: (-1.0) ** index)
    return rollout(RolloutSample, index, **old, group_id=lambda n: index // 2)


def taught(llama, path):
    """Return a teacher, whose tokenizer is loaded from where it was saved."""
    teacher = llama(1)
    teacher.config._name_or_path = str(path)
    return {"teacher_model": teacher}


def rated(prompts, completions, **_):
    return [float(index % 2) for index, _ in enumerate(completions)]


# Module and class, to what it is made of: settings, data and other arguments; the model is made by the test.
CASES = {
    "trl.trainer.distillation_trainer.DistillationTrainer": (
        dict(max_completion_length=4),
        PROMPTS,
        taught,
    ),
    "trl.trainer.dpo_trainer.DPOTrainer": (dict(), PAIRS, None),
    "trl.trainer.grpo_trainer.GRPOTrainer": (ONLINE, PROMPTS, lambda llama, path: dict(reward_funcs=longest)),
    "trl.trainer.kto_trainer.KTOTrainer": (dict(), RATED, None),
    "trl.trainer.reward_trainer.RewardTrainer": (dict(), PAIRS, None),
    "trl.trainer.rloo_trainer.RLOOTrainer": (ONLINE, PROMPTS, lambda llama, path: dict(reward_funcs=longest)),
    "trl.trainer.sft_trainer.SFTTrainer": (dict(), TALKS, None),
    "trl.experimental.a2po.a2po_trainer.A2POTrainer": (
        dict(max_completion_length=4, num_value_samples=2, filter_all_incorrect=False),
        PROMPTS,
        lambda llama, path: dict(reward_funcs=rated),
    ),
    "trl.experimental.async_distillation.async_distillation_trainer.AsyncDistillationTrainer": (
        dict(
            model_init_kwargs={"attn_implementation": "sdpa"},
            token_budget=64,
        ),
        PROMPTS,
        lambda llama, path: dict(rollout_worker=Worker(distilled), weight_transfer=TRANSFER),
    ),
    "trl.experimental.async_grpo.async_grpo_trainer.AsyncGRPOTrainer": (
        dict(token_budget=64),
        PROMPTS,
        lambda llama, path: dict(rollout_worker=Worker(rewarded), weight_transfer=TRANSFER, reward_funcs=rated),
    ),
    "trl.experimental.bema_for_ref_model.dpo_trainer.DPOTrainer": (dict(), PAIRS, None),
    "trl.experimental.cpo.cpo_trainer.CPOTrainer": (dict(max_length=32), PAIRS, None),
    "trl.experimental.distillation.DistillationTrainer": (
        dict(max_completion_length=4),
        PROMPTS,
        taught,
    ),
    "trl.experimental.gkd.gkd_trainer.GKDTrainer": (
        dict(max_new_tokens=4, max_length=64),
        TALKS,
        taught,
    ),
    "trl.experimental.gmpo.gmpo_trainer.GMPOTrainer": (
        ONLINE,
        PROMPTS,
        lambda llama, path: dict(reward_funcs=longest),
    ),
    "trl.experimental.gold.gold_trainer.GOLDTrainer": (
        dict(max_completion_length=4, max_length=64),
        TALKS,
        taught,
    ),
    "trl.experimental.iw_opd.iw_opd_trainer.IWOPDTrainer": (
        dict(max_completion_length=4, max_length=64),
        TALKS,
        taught,
    ),
    "trl.experimental.kto.KTOTrainer": (dict(), RATED, None),
    "trl.experimental.online_dpo.online_dpo_trainer.OnlineDPOTrainer": (
        dict(max_new_tokens=4),
        PROMPTS,
        lambda llama, path: dict(reward_funcs=rated, ref_model=llama(1)),
    ),
    "trl.experimental.orpo.orpo_trainer.ORPOTrainer": (dict(max_length=32), PAIRS, None),
    "trl.experimental.sdft.sdft_trainer.SDFTTrainer": (dict(num_generations=1, max_completion_length=4), HELPED, None),
    "trl.experimental.sdpo.sdpo_trainer.SDPOTrainer": (
        ONLINE,
        HELPED,
        lambda llama, path: dict(reward_funcs=rated),
    ),
    "trl.experimental.server_distillation.server_distillation_trainer.ServerDistillationTrainer": (
        dict(max_completion_length=4, teacher_model_server_url="http://localhost:1"),
        PROMPTS,
        None,
    ),
    "trl.experimental.tpo.tpo_trainer.TPOTrainer": (dict(), TRIPLES, None),
}
# What a noise cannot enter, with the sentence that says so.
REFUSED = {"AsyncGRPOTrainer": "^document boundaries must be given by .*, got tree_kv_index, which noise cannot read"}
QUICK = {"ORPOTrainer", "OnlineDPOTrainer", "trl.trainer.distillation_trainer.DistillationTrainer"}


def name_of(path):
    """Return what a trainer is called in the support matrix: its class, and the module where that is not enough."""
    module, _, name = path.rpartition(".")
    return name if sum(each.endswith(f".{name}") for each in CASES) == 1 else f"{module.rpartition('.')[0]}.{name}"


def parametrized(names):
    quick = {path for path in CASES if path in QUICK or path.rpartition(".")[2] in QUICK}
    return pytest.mark.parametrize(
        ("path", "kind"),
        [pytest.param(each, name_of(each), marks=[] if each in quick else pytest.mark.slow) for each in names],
        ids=lambda each: "" if each in CASES else each,
    )


def test_every_trainer_of_trl_has_a_case():
    found = set()
    for package in (trl.trainer, trl.experimental):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                names = vars(importlib.import_module(module.name))
            except ModuleNotFoundError:  # of something that TRL does not install, for rollouts
                assert not module.name.endswith("_trainer"), module.name
                continue
            for name, value in names.items():
                trains = isinstance(value, type) and issubclass(value, transformers.Trainer)
                if trains and value.__module__ == module.name and not name.startswith("_"):
                    found.add(f"{module.name}.{name}")
    assert found == set(CASES)


class Look:
    """Records for every call of a backbone whether it had gradients, and its noise over the paper's, by document."""

    def __init__(self, model):
        self.noisy, self.clean, self.padding = [], [], []
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.table = base.get_input_embeddings()
        base.model.register_forward_pre_hook(self.read, with_kwargs=True)
        base.model.layers[0].register_forward_pre_hook(self.measure, with_kwargs=True)

    def read(self, module, args, kwargs):
        self.ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        self.real = torch.ones_like(self.ids, dtype=torch.bool) if mask is None else mask.bool()
        packed = len(self.ids) == 1 and mask is None and positions is not None
        starts = (positions == 0) if packed else torch.zeros_like(self.ids, dtype=torch.bool)
        rows = torch.arange(len(self.ids))[:, None] * 10_000
        self.document = starts.cumsum(-1) + rows

    def measure(self, module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        delta = hidden.detach().float() - self.table.weight[self.ids].detach().float()
        if not torch.is_grad_enabled():
            self.clean.append(delta.abs().max().item())
            return
        if self.real.shape == self.ids.shape:  # decoding has a mask of all that came before
            self.padding.append(delta[~self.real].abs().sum().item())
            for number in self.document[self.real].unique():
                own = delta[(self.document == number) & self.real]
                paper = ALPHA / math.sqrt(len(own) * WIDTH) / math.sqrt(3)
                self.noisy.append((own.square().mean().sqrt() / paper).item())


@pytest.fixture
def build(llama, tokenizer, tmp_path, monkeypatch):
    """Return a maker of stock trainers: two steps of four records."""

    def make(path, **settings):
        own, data, extra = CASES[path]
        module, _, name = path.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        by_config = importlib.import_module(module if hasattr(importlib.import_module(module), name) else "trl")
        config = getattr(by_config, name.replace("Trainer", "Config"), None) or getattr(
            trl, name.replace("Trainer", "Config")
        )
        common = short_run(tmp_path / "out")
        folder = tmp_path / "model"  # references, teachers and rollouts are loaded from it
        model = judge(tokenizer) if name == "RewardTrainer" else llama()
        model.save_pretrained(folder), tokenizer.save_pretrained(folder)
        model.config._name_or_path = str(folder)
        if name.startswith("Async"):
            model = str(folder)
            monkeypatch.setattr(f"{module}.get_peak_flops_per_device", lambda *_: None)  # it asks for a GPU's name
        if name == "ServerDistillationTrainer":
            monkeypatch.setattr("trl.generation.vllm_client.VLLMClient", lambda **_: Teacher(llama(1)))
        arguments = {} if extra is None else extra(llama, folder)
        return cls(
            model=model,
            args=config(**{**common, **own, **settings}),
            train_dataset=data,
            processing_class=tokenizer,
            **arguments,
        )

    return make


def others_of(trainer):
    """Return the models beside the one that is trained."""
    found = (getattr(trainer, name, None) for name in ("teacher_model", "ref_model"))
    return [model for model in found if isinstance(model, torch.nn.Module)]


@pytest.mark.cell("Every trainer of TRL", "{kind}")
@parametrized(CASES)
def test_noise_of_the_stated_size_is_where_the_policy_is_trained_and_nowhere_else(build, refused, path, kind):
    trainer = enable(build(path), LOUD)
    message = REFUSED.get(kind)
    if message is not None:
        before = weights(trainer.model)
        with pytest.raises(NoiseError, match=message) as caught:
            trainer.train()
        refused(caught)
        assert same(weights(trainer.model), before)
        return
    look, others = Look(trainer.model), [Look(model) for model in others_of(trainer) if model is not trainer.model]
    trainer.train()
    mean = math.sqrt(sum(ratio**2 for ratio in look.noisy) / len(look.noisy))
    assert len(look.noisy) >= 8 and mean == pytest.approx(1, abs=0.05) and min(look.noisy) > 0.7, look.noisy
    assert not any(look.padding) and not any(look.clean)
    assert not any(ratio for other in others for ratio in (*other.noisy, *other.clean))
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 2 and all(math.isfinite(line["loss"]) and line["noise/rms"] > 0 for line in lines)
    assert type(trainer).__name__ == path.rpartition(".")[2]


@pytest.mark.slow
@pytest.mark.cell("Every trainer of TRL", "{kind}: without strength the stock trainer, bit for bit")
@parametrized([path for path in CASES if name_of(path) not in REFUSED])
def test_without_strength_it_is_the_stock_trainer_bit_for_bit(build, path, kind):
    plain, ours = build(path), enable(build(path), {**LOUD, "alpha": 0})
    for trainer in (plain, ours):
        transformers.set_seed(0)  # of generation
        trainer.train()
    assert same(weights(plain.model), weights(ours.model))


# Where the step is the trainer's own, several passes are refused.
ONE_PASS_ONLY = {"OnlineDPOTrainer": "^OnlineDPOTrainer.training_step must call compute_loss"}


@pytest.mark.slow
@pytest.mark.cell("Every trainer of TRL", "{kind}: symnoise")
@parametrized([path for path in CASES if name_of(path) not in REFUSED])
def test_two_passes_train_or_are_refused_before_the_optimizer_steps(build, refused, path, kind):
    trainer = enable(build(path), "symnoise")
    before = weights(trainer.model)
    if kind in ONE_PASS_ONLY:
        with pytest.raises(NoiseError, match=ONE_PASS_ONLY[kind]) as caught:
            trainer.train()
        refused(caught)
        assert same(weights(trainer.model), before)
        return
    trainer.train()
    assert not same(weights(trainer.model), before)
    assert all(math.isfinite(line["loss"]) for line in trainer.state.log_history if "loss" in line)


@pytest.mark.slow
@pytest.mark.cell("Every trainer of TRL", "{kind}: NoiseCallback")
@parametrized([path for path in CASES if name_of(path) not in REFUSED])
def test_a_callback_is_enable(build, path, kind):
    enabled, called = enable(build(path), LOUD), build(path)
    called.add_callback(NoiseCallback(LOUD))
    for trainer in (enabled, called):
        transformers.set_seed(0)  # of generation
        trainer.train()
    assert same(weights(enabled.model), weights(called.model))
