"""What only the inference check reads: indexes, configs, references, each refused in a sentence."""

import json
import time
from typing import Any

import pytest

from inference_check import config
from inference_check.errors import NotRun
from inference_check.reference import load_reference
from verifier.readers import ReadError, index

from .cases import MIB
from .samples import HF, META, REFERENCE

INDEXES: dict[str, tuple[Any, str]] = {
    "empty": (b"", "not JSON"),
    "a list": (b"[]", "no weight_map"),
    "null": (b"null", "no weight_map"),
    "no map": (b"{}", "no weight_map"),
    "a map that is a list": ({"weight_map": []}, "no weight_map"),
    "nested 10^5 deep": (b"[" * 100_000, "too deep"),
    "a key twice": (b'{"weight_map":{"a":"x","a":"y"}}', "repeats the key"),
    "NaN": (b'{"metadata":{"total_size":NaN}}', "NaN"),
    "10^5 digits": (b'{"metadata":' + b"9" * 100_000 + b"}", "digits"),
    "half a surrogate pair": (b'{"weight_map":{"\\ud800":"x"}}', "surrogate"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "UTF-16": ("{}".encode("utf-16"), "UTF-8|not JSON"),
    "a shard in a folder above": ({"weight_map": {"a": "../x"}}, "no file of this folder"),
    "an absolute shard": ({"weight_map": {"a": "/etc/passwd"}}, "no file of this folder"),
    "NUL in a shard": ({"weight_map": {"a": "x\0"}}, "no file of this folder"),
    "a shard without a name": ({"weight_map": {"a": ""}}, "no file of this folder"),
    "a shard that is a number": ({"weight_map": {"a": 1}}, "no file of this folder"),
    "a shard that is a list": ({"weight_map": {"a": ["x"]}}, "no file of this folder"),
    "70 MiB": (lambda: b" " * 70 * MIB, "larger than"),
    "a million tensors": (
        lambda: {"weight_map": {str(n): "x" for n in range(1_000_000)}},
        "items|no weight_map",
    ),
    "a header of safetensors": (b"\x10\0\0\0\0\0\0\0{}", "not JSON"),
}


def within_a_second(read: Any, *given: Any) -> str:
    """Return what a reader refuses with, within a second of CPU time."""
    started = time.process_time()
    with pytest.raises((ReadError, NotRun)) as caught:
        read(*given)
    assert time.process_time() - started < 1
    assert str(caught.value).isprintable()
    return str(caught.value)


def as_bytes(given: Any) -> bytes:
    value = given() if callable(given) else given
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def says(words: str, sentence: str) -> bool:
    return any(word in sentence for word in words.split("|"))


@pytest.mark.parametrize(("given", "words"), INDEXES.values(), ids=list(INDEXES))
def test_an_index_that_lies_is_refused(tmp_path, given, words):
    (tmp_path / "index.json").write_bytes(as_bytes(given))
    assert says(words, within_a_second(index.read, tmp_path, "index.json"))


BIG = 10**4000
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "no architecture": ({"architectures": None, "model_type": None}, "architecture"),
    "an architecture that is a list": ({"architectures": [[["x"] * 99]]}, "architecture"),
    "an architecture of a mebibyte": ({"architectures": ["x" * MIB]}, "architecture"),
    "a type that is an object": ({"model_type": {"a": 1}}, "architecture"),
    "code of its own": ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
    "a quantization": ({"quantization_config": {"bits": 4}}, "quantized"),
    "experts": ({"num_local_experts": 8}, "experts"),
    "1,001 layers": ({"num_hidden_layers": 1001}, "num_hidden_layers"),
    "no layer": ({"num_hidden_layers": 0}, "num_hidden_layers"),
    "-1 layers": ({"num_hidden_layers": -1}, "num_hidden_layers"),
    "true layers": ({"num_hidden_layers": True}, "num_hidden_layers"),
    "2.0 layers": ({"num_hidden_layers": 2.0}, "num_hidden_layers"),
    "10^4000 layers": ({"num_hidden_layers": BIG}, "num_hidden_layers"),
    "a width of 65,537": ({"hidden_size": 65_537}, "hidden_size"),
    "a width of text": ({"hidden_size": "64"}, "hidden_size"),
    "a width of lists": ({"hidden_size": [[[]]]}, "hidden_size"),
    "no heads": ({"num_attention_heads": 0}, "num_attention_heads"),
    "heads that do not divide": ({"num_key_value_heads": 3}, "do not fit"),
    "an odd head": ({"head_dim": 15}, "do not fit"),
    "heads wider than all": ({"head_dim": 65_536}, "wider than"),
    "2^20 + 1 tokens": ({"vocab_size": (1 << 20) + 1}, "vocab_size"),
    "an epsilon of -1": ({"rms_norm_eps": -1}, "rms_norm_eps"),
    "an epsilon of infinity": ({"rms_norm_eps": float("inf")}, "rms_norm_eps"),
    "an epsilon that is NaN": ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    "a base of zero": ({"rope_theta": 0}, "rotary base"),
    "a base of 10^4000": ({"rope_theta": BIG}, "rotary base"),
    "a base that is NaN": ({"rope_theta": float("nan")}, "rotary base"),
    "a scaling that is a list": ({"rope_scaling": [1]}, "not an object"),
    "a scaling of no kind": ({"rope_scaling": {"rope_type": ["x"]}}, "rotary"),
    "a scaling by 10^4000": ({"rope_scaling": HF["rope_scaling"] | {"factor": BIG}}, "factor"),
    "a scaling by NaN": (
        {"rope_scaling": HF["rope_scaling"] | {"factor": float("nan")}},
        "factor",
    ),
    "an activation that is a list": ({"hidden_act": ["silu"]}, "activation"),
    "tied, says a text": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    "a window of 1": ({"sliding_window": 1}, "sliding window"),
    "a window of lists": ({"sliding_window": [[]]}, "sliding window"),
}
PARAMS: dict[str, tuple[dict[str, Any], str]] = {
    "1,001 layers": ({"n_layers": 1001}, "n_layers"),
    "a width of 2^63": ({"dim": 2**63}, "dim"),
    "no heads": ({"n_heads": 0}, "n_heads"),
    "a vocabulary of -2": ({"vocab_size": -2}, "vocab_size"),
    "a vocabulary that is true": ({"vocab_size": True}, "vocab_size"),
    "experts": ({"moe": {"num_experts": 8}}, "experts"),
    "a base of text": ({"rope_theta": "1e6"}, "rotary base"),
    "an epsilon of 2": ({"norm_eps": 2}, "norm_eps"),
}


@pytest.mark.parametrize(("changes", "words"), CONFIGS.values(), ids=list(CONFIGS))
def test_a_config_that_lies_is_refused(changes, words):
    assert says(words, within_a_second(config.from_hugging_face, HF | changes))


@pytest.mark.parametrize(("changes", "words"), PARAMS.values(), ids=list(PARAMS))
def test_params_that_lie_are_refused(changes, words):
    assert says(words, within_a_second(config.from_meta, META | changes))


REFERENCES: dict[str, Any] = {
    "empty": b"",
    "a list": [],
    "nested 10^5 deep": b"[" * 100_000,
    "another schema": REFERENCE | {"schema": 2},
    "tokens of text": REFERENCE | {"tokens": ["a"]},
    "tokens of 10^30": REFERENCE | {"tokens": [10**30]},
    "10^6 tokens": REFERENCE | {"tokens": [1] * 1_000_000},
    "answers that are no base64": REFERENCE | {"logits": "!"},
    "answers of another length": REFERENCE | {"logits": "AAAA"},
    "answers that are a list": REFERENCE | {"ids": [1]},
    "layers of 10^30": REFERENCE | {"layers": 10**30},
    "an error of infinity": REFERENCE | {"eps64": 1e999},
    "20 MiB": lambda: b" " * 20 * MIB,
}


@pytest.mark.parametrize("given", REFERENCES.values(), ids=list(REFERENCES))
def test_a_reference_that_lies_is_refused(tmp_path, given):
    (tmp_path / "reference.json").write_bytes(as_bytes(given))
    assert within_a_second(load_reference, tmp_path / "reference.json")
