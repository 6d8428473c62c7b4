"""All cases of the corpus."""

from . import (
    bundle_cases,
    command_cases,
    folder_cases,
    gguf_cases,
    key_cases,
    layout_cases,
    list_cases,
    pickle_cases,
    safetensors_cases,
    side_cases,
    zip_cases,
)

TABLES = (
    safetensors_cases,
    zip_cases,
    pickle_cases,
    gguf_cases,
    bundle_cases,
    side_cases,
    key_cases,
    list_cases,
    layout_cases,
    folder_cases,
    command_cases,
)
CASES = [case for module in TABLES for case in module.CASES]
