"""The embedding model: MiniLM in ONNX form, mean-pooled over the attention mask."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from modeld.backends.protocols import Tokens, Vectors


class OnnxEmbedder:
    """A sentence encoder on onnxruntime.

    Its weights are int8 and its arithmetic float32, so a row does not depend on what else is in its batch.
    Each forward pass uses the one thread that calls it; several threads may call at once.
    """

    def __init__(self, weights: Path, tokenizer: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it would keep the peak of the largest batch for ever
        self._session = ort.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def truncate(self, tokens: Tokens, length: int) -> Tokens:
        return tokens if len(tokens) <= length else [*tokens[: length - 1], tokens[-1]]

    def embed(self, batch: Sequence[Tokens]) -> Vectors:
        shape = (len(batch), max(map(len, batch)))
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states = self._session.run(["last_hidden_state"], inputs)[0]
        pooled = np.einsum("bsd,bs->bd", states, mask.astype(np.float32))  # the norm takes out the count
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), np.float32)

    def close(self) -> None:
        del self._session
