"""Takes the gradients of one step of `attach()` in two processes under DDP, and saves them.

torchrun --standalone --nproc_per_node 2 loop_worker.py out name...
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM

from neft_zoo import NoiseError, attach

SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)


def build():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).train()


def batch(rank):
    ids = torch.arange(3, 23).view(2, 10) + 20 * rank
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def gradients(model):
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def step(model, name, rank):
    """Return the gradients of the bare model after one step through `model`, which may wrap it."""
    handle = attach(model, name, total_steps=1, rank=rank)
    handle.loss(batch(rank)).backward()
    return gradients(handle.session.bare_model)


def main(out, *names):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    found = {name: step(DistributedDataParallel(build()), name, rank) for name in names}
    try:
        attach(build(), names[0], total_steps=1)
    except NoiseError as error:
        found["refused"] = str(error)
    torch.save(found, Path(out) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
