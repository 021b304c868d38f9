"""Tiny untrained models of many families, 2 layers of 32 features."""

import torch
import transformers as t

PLACEHOLDER = 60
SMALL = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
HEADS = {**SMALL, "head_dim": 16}
GPT2 = dict(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
OPT = {**SMALL, "ffn_dim": 64, "max_position_embeddings": 64, "dropout": 0.0, "init_std": 0.2}
PER_LAYER = dict(
    vocab_size_per_layer_input=64,
    hidden_size_per_layer_input=8,
    layer_types=["sliding_attention", "full_attention"],
    num_kv_shared_layers=0,
)
LATENT = dict(q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)

# Where a family has a cap or a factor, its value here is one that shows.
TEXT = {
    "llama": lambda: t.LlamaConfig(**HEADS),
    "mistral": lambda: t.MistralConfig(**HEADS),
    "qwen3": lambda: t.Qwen3Config(**HEADS),
    "gemma": lambda: t.GemmaConfig(**HEADS),
    "gemma2": lambda: t.Gemma2Config(**HEADS, final_logit_softcapping=0.5),
    "gemma3": lambda: t.Gemma3TextConfig(**HEADS),
    "granite": lambda: t.GraniteConfig(**SMALL, embedding_multiplier=12.0, logits_scaling=4.0),
    "minicpm3": lambda: t.MiniCPM3Config(**SMALL, **LATENT),
    "phi": lambda: t.PhiConfig(**SMALL),
    "gpt2": lambda: t.GPT2Config(**GPT2, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    "opt": lambda: t.OPTConfig(**OPT, word_embed_proj_dim=16),
    "gpt_neox": lambda: t.GPTNeoXConfig(**SMALL),
    "mixtral": lambda: t.MixtralConfig(**HEADS, num_local_experts=4),
    "qwen3_moe": lambda: t.Qwen3MoeConfig(**HEADS, **EXPERTS),
    "gemma3n": lambda: t.Gemma3nTextConfig(**HEADS, **PER_LAYER, laurel_rank=4, activation_sparsity_pattern=[0.0] * 2),
    "gemma4": lambda: t.Gemma4TextConfig(**HEADS, **PER_LAYER, global_head_dim=16),
}


def text(name, **changes):
    """Return a language model in train mode."""
    torch.manual_seed(0)
    config = TEXT[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    return t.AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()


def llava():
    """Return a Llava: 4 placeholders per image."""
    torch.manual_seed(0)
    vision = t.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    config = t.LlavaConfig(
        vision_config=vision,
        text_config=t.LlamaConfig(**HEADS),
        image_token_index=PLACEHOLDER,
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    return t.LlavaForConditionalGeneration(config).train()


def qwen2_vl():
    """Return a Qwen2-VL: 2 placeholders per image of 2 x 4 patches."""
    torch.manual_seed(0)
    config = t.Qwen2VLConfig(
        text_config={**SMALL, "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 4]}},
        vision_config=dict(depth=1, embed_dim=16, hidden_size=32, num_heads=2, patch_size=4, mlp_ratio=2),
        image_token_id=PLACEHOLDER,
        video_token_id=61,
        vision_start_token_id=62,
        vision_end_token_id=63,
    )
    return t.Qwen2VLForConditionalGeneration(config).train()
