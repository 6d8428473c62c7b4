"""Good configs and a reference, to be spoiled."""

from typing import Any

HF: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "sliding_window": None,
    "head_dim": 16,
}
GEMMA = HF | {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}
GEMMA |= {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4096}
GEMMA |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": None}
GEMMA |= {"query_pre_attn_scalar": 256, "layer_types": ["full_attention", "sliding_attention"]}
GGUF = {
    "general.architecture": "llama",
    "llama.embedding_length": 64,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.feed_forward_length": 128,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.dimension_count": 16,
}
META = {"dim": 64, "n_layers": 2, "n_heads": 4, "norm_eps": 1e-5, "vocab_size": -1}
META |= {"n_kv_heads": 2, "multiple_of": 32, "ffn_dim_multiplier": 1.3, "rope_theta": 5e5}

REFERENCE = {"schema": 1, "family": "llama", "layers": 1, "width": 8, "vocab": 9, "seed": "s"}
REFERENCE |= {"tokens": [1, 2], "eps64": 1e-6, "layers_eps64": [1e-6]}
REFERENCE |= dict.fromkeys(
    ("logsumexp", "std", "ids", "logits", "sketch", "activations"), "AAAAAA=="
)
