"""What sets each family apart from LLaMA; everything else they have in common is in model.py.

A new family is one line here if these words describe it. If they do not, its layers are not run at
all: a wrong answer would be worse than none.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Differences from LLaMA (Touvron et al. 2023), by the name of the class in ``transformers``.

    ``qkv_bias``: query, key and value have a bias. ``qk_norm``: each head of query and key is
    normed before it is rotated. ``gain_from_one``: a norm's gain is 1 + w. ``scaled_embedding``:
    the embedding is multiplied by √D. ``sandwich``: attention and feed-forward are normed after as
    well as before. ``softcaps``: scores and logits go through c·tanh(·/c). ``tied``: the output head
    is the embedding unless the config says otherwise. ``activations``: the names that a config may
    give to the gate's activation.
    """

    architecture: str
    qkv_bias: bool = False
    qk_norm: bool = False
    gain_from_one: bool = False
    scaled_embedding: bool = False
    sandwich: bool = False
    softcaps: bool = False
    tied: bool = False
    gelu: bool = False
    head_width: int | None = None

    @property
    def activations(self) -> frozenset[str]:
        """What a config may call the activation; ``gelu`` is Gemma's old name of the tanh form."""
        return frozenset({"gelu", "gelu_pytorch_tanh"} if self.gelu else {"silu"})


FAMILIES = {
    "llama": Family("LlamaForCausalLM"),
    "mistral": Family("MistralForCausalLM"),
    "qwen2": Family("Qwen2ForCausalLM", qkv_bias=True),
    "qwen3": Family("Qwen3ForCausalLM", qk_norm=True, head_width=128),
    "gemma": Family(
        "GemmaForCausalLM",
        gain_from_one=True,
        scaled_embedding=True,
        tied=True,
        gelu=True,
        head_width=256,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        gain_from_one=True,
        scaled_embedding=True,
        sandwich=True,
        softcaps=True,
        tied=True,
        gelu=True,
        head_width=256,
    ),
}
"""By ``model_type``. Jiang et al. 2023 (Mistral), Yang et al. 2024 (Qwen2), Yang et al. 2025
(Qwen3), Gemma Team 2024 (Gemma, Gemma 2)."""
