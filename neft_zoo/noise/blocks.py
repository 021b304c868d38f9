"""Work on many positions a block at a time: what is in work stays in the cache, and takes little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Numbers that are worked on at a time, on a CPU by each thread.
BLOCK = {"cpu": 1 << 18}
GPU_BLOCK = 1 << 24


def blocks(rows: int, width: int, device: str) -> list[slice]:
    """Cut rows into blocks, so that what is in work on a CPU stays in its cache, and on a GPU takes little memory.

    Inside a compiled graph there is one block: the compiler has its own.
    """
    import torch  # late: `neft-zoo list` works without it

    if torch.compiler.is_compiling():
        return [slice(None)]
    size = BLOCK[device] * torch.get_num_threads() if device in BLOCK else GPU_BLOCK
    step = max(1, size // width)
    return [slice(first, first + step) for first in range(0, rows, step)]


def token_norms(states: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape"]:
    """Return the norm of every token's embedding or hidden state, without gradients, in float32 or wider."""
    from torch import float32, linalg, promote_types

    states = states.detach()
    dtype = promote_types(states.dtype, float32)
    if states.dtype == dtype:
        return linalg.vector_norm(states, dim=-1)
    flat = states.reshape(-1, states.shape[-1])
    norms = flat.new_empty(len(flat), dtype=dtype)
    # A copy of all of them in float32 would take more memory, and longer where that has to be paged in.
    for block in blocks(len(flat), flat.shape[-1], flat.device.type):
        norms[block] = linalg.vector_norm(flat[block].to(dtype), dim=-1)
    return norms.view(states.shape[:-1])
