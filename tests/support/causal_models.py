"""Every causal language model of transformers, tiny and untrained: 4 layers of 32 features, 64 words.

A config is made from its class's defaults: whatever field has a name in `SIZES` gets that size. `CHANGES` holds what a
class wants besides.
"""

import torch
import transformers as t
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

WIDTH, LAYERS, WORDS = 32, 4, 64


def _sizes(number, names):
    return dict.fromkeys(names.split(), number)


SIZES = {
    **_sizes(WIDTH, "hidden_size d_model n_embd emb_dim embedding_size embedding_dim attention_hidden_size lru_width"),
    **_sizes(
        WIDTH,
        "word_embed_proj_dim input_embedding_size output_embedding_size block_size router_hidden_size",
    ),
    **_sizes(WIDTH, "hidden_size_global"),
    **_sizes(LAYERS, "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_blocks"),
    **_sizes(LAYERS, "num_decoder_layers num_encoder_layers"),
    **_sizes(2, "num_attention_heads n_head n_heads num_heads attention_heads num_key_value_heads num_kv_heads"),
    **_sizes(2, "num_query_groups decoder_attention_heads encoder_attention_heads num_decoder_attention_heads"),
    **_sizes(2, "num_encoder_attention_heads swa_num_attention_heads swa_num_key_value_heads index_n_heads"),
    **_sizes(2, "linear_num_key_heads linear_num_value_heads linear_num_heads num_experts_per_tok n_group topk_group"),
    **_sizes(2, "num_experts_per_token moe_topk moe_k num_expert_group"),
    **_sizes(4, "num_experts num_local_experts n_routed_experts moe_num_experts mamba_n_heads"),
    **_sizes(8, "qk_nope_head_dim qk_rope_head_dim q_lora_rank kv_lora_rank rotary_dim mamba_d_state state_size"),
    **_sizes(8, "ssm_state_size o_lora_rank hidden_size_per_layer_input"),
    **_sizes(16, "head_dim v_head_dim swa_head_dim attention_head_dim attention_head_size linear_key_head_dim"),
    **_sizes(16, "linear_value_head_dim linear_head_dim index_head_dim kv_channels d_head dim_head global_head_dim"),
    **_sizes(16, "qk_head_dim mamba_d_head"),
    **_sizes(64, "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size d_inner dim_ff dff"),
    **_sizes(64, "intermediate_size_mlp feed_forward_size moe_intermediate_size shared_expert_intermediate_size"),
    **_sizes(64, "shared_experts_intermediate_size shared_intermediate_size expert_ffn_hidden_size"),
    **_sizes(64, "moe_shared_expert_intermediate_size dense_intermediate_size"),
    **_sizes(64, "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions"),
    **_sizes(64, "sliding_window index_topk mamba_d_ssm"),
    **_sizes(WORDS, "vocab_size vocab_size_per_layer_input encoder_hash_byte_group_vocab"),
    **dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, is_decoder=True),
}
ROTATED = dict(head_dim=8)  # rotates its whole head
LAYER_TYPES = ["linear_attention", "hybrid"] * 2
DOTS3 = {
    **_sizes(8, "swa_q_lora_rank swa_kv_lora_rank swa_qk_nope_head_dim"),
    **_sizes(16, "swa_head_dim swa_v_head_dim"),
    **_sizes(2, "swa_num_attention_heads swa_num_key_value_heads"),
}
QWEN4 = dict(indexer_budget=8, indexer_compress_ratio=4, indexer_head_dim=16, indexer_n_heads=2, indexer_kv_heads=1)
ASSISTANT = dict(hidden_size_per_layer_input=0, vocab_size_per_layer_input=0, num_kv_shared_layers=0)
CHANGES = {
    "cohere_compass_text": dict(rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 1e4}}),
    "codegen": dict(n_head=4),
    "dbrx": dict(
        attn_config={"rope_theta": 1e4, "clip_qkv": 8.0}, ffn_config=dict(hidden_size=32, ffn_hidden_size=64)
    ),
    "deepseek_v2": dict(num_experts_per_tok=2, **ROTATED),
    "dots1": dict(n_routed_experts=4, n_shared_experts=1, n_group=1, topk_group=1, num_experts_per_tok=2),
    "dots3_note": DOTS3,
    "dots3_note_text": DOTS3,
    "git": {"vision_config": dict(image_size=8, patch_size=4)},
    "gpt_neo": dict(attention_types=[[["global", "local"], 2]]),
    "hunyuan_v1_dense": dict(head_dim=16),
    "hunyuan_v1_moe": dict(head_dim=16),
    "lfm2_moe": dict(layer_types=["conv", "full_attention"] * 2),
    "mamba2": dict(num_heads=4, n_groups=2),
    "mimo_v2_flash": dict(num_attention_heads=4),
    "ministral": dict(head_dim=16),
    "nemotron": dict(num_key_value_heads=2),
    "qwen4_exp": QWEN4,
    "qwen4_exp_text": QWEN4,
    "reformer": dict(
        attn_layers=["local", "lsh", "local", "lsh"],
        axial_pos_shape=[4, 4],
        axial_pos_embds_dim=[16, 16],
        local_attn_chunk_length=8,
        lsh_attn_chunk_length=8,
        num_buckets=2,
        hash_seed=0,
        **dict.fromkeys(("hidden_dropout_prob", "local_attention_probs_dropout_prob"), 0.0),  # draws are not seeded
    ),
    "xmod": dict(default_language="en_XX"),
    "xlstm": dict(chunk_size=8),
    "zamba": dict(layers_block_type=LAYER_TYPES, attention_hidden_size=64, attention_head_dim=32),
    "zamba2": dict(layers_block_type=LAYER_TYPES, attention_hidden_size=64, attention_head_dim=32),
    "zaya": dict(num_experts_per_tok=1),
    "gemma3n_text": dict(num_kv_shared_layers=0, activation_sparsity_pattern=[0.0] * 4, laurel_rank=4),
    "gemma4_assistant": {"text_config": ASSISTANT},
    "gemma4_unified_assistant": {"text_config": ASSISTANT},
}


def model_class(name):
    """Return the class that AutoModelForCausalLM makes of a model type."""
    return getattr(t, NAMES[name])


def config_of(name):
    """Return the tiny config of a model type."""
    kind = model_class(name).config_class
    start = {"text_config": ASSISTANT} if name == "gemma4_assistant" else {}  # its defaults are refused
    return kind(**_shrunk(kind(**start), CHANGES.get(name, {})))


def _shrunk(config, changes):
    """Return what a config is made of: small sizes for the fields that it has, sub-configs alike, and the changes."""
    fields = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    sizes = {k: SIZES[k] for k, v in fields.items() if k in SIZES and (type(v) in (int, bool) or k == "pad_token_id")}
    if "qk_rope_head_dim" in fields:
        sizes |= ROTATED
    parts = {k: v for k, v in fields.items() if isinstance(v, t.PreTrainedConfig)}
    nested = {k: _shrunk(v, changes.get(k, {})) for k, v in parts.items()}
    return sizes | {k: v for k, v in nested.items() if v} | {k: v for k, v in changes.items() if k not in nested}


def build(name):
    """Return the tiny model of a model type, in train mode."""
    torch.manual_seed(0)
    config = config_of(name)
    config.use_cache = False
    model = model_class(name)._from_config(config, attn_implementation="eager")
    return model.train()


def extra_inputs(name, rows):
    """Return what a model's loss cannot do without, besides token ids."""
    if name != "git":
        return {}
    size = config_of(name).vision_config.image_size
    return {"pixel_values": torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(2))}
