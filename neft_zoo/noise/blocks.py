"""Processing many positions block by block, to stay in the CPU's cache and to save memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Numbers per block; on a CPU, per thread.
BLOCK = {"cpu": 1 << 18}
GPU_BLOCK = 1 << 24


def blocks(rows: int, width: int, device: str) -> list[slice]:
    """Split rows into blocks that fit the cache on a CPU and bound memory on a GPU.

    Inside a compiled graph there is one block, since the compiler does its own tiling.
    """
    import torch  # late: `neft-zoo list` works without it

    if torch.compiler.is_compiling():
        return [slice(None)]
    size = BLOCK[device] * torch.get_num_threads() if device in BLOCK else GPU_BLOCK
    step = max(1, size // width)
    return [slice(first, first + step) for first in range(0, rows, step)]


def token_norms(states: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape"]:
    """Return the norm of every token's embedding or hidden state, detached, in float32 or wider."""
    from torch import float32, linalg, promote_types

    states = states.detach()
    dtype = promote_types(states.dtype, float32)
    if states.dtype == dtype:
        return linalg.vector_norm(states, dim=-1)
    flat = states.reshape(-1, states.shape[-1])
    norms = flat.new_empty(len(flat), dtype=dtype)
    # A float32 copy of all states would take more memory, and more time if it has to be paged in.
    for block in blocks(len(flat), flat.shape[-1], flat.device.type):
        norms[block] = linalg.vector_norm(flat[block].to(dtype), dim=-1)
    return norms.view(states.shape[:-1])
