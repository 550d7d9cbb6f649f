"""The dataset's card, in Croissant 1.1: what the files are and which fields their lines have."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from schemas.evidence import ProductFile

CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "equivalentProperty": "cr:equivalentProperty",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

Shape = Literal["text", "message", "messages", "turn", "turns", "input"]

CONVERSATION: Final = "The conversation, ending with the accepted answer."
BEFORE: Final = "The conversation before the answers."
BETTER: Final = "The better answer."
WORSE: Final = "The worse answer."

FIELDS: Final[Mapping[str, Mapping[str, tuple[Shape, str]]]] = {
    "rag/stillhouse": {
        "evidence_id": ("text", "The id of the evidence behind the sample."),
        "query": ("text", "What was asked."),
        "text": ("text", "The accepted answer."),
    },
    "sft/openai": {"messages": ("messages", CONVERSATION)},
    "sft/trl": {"prompt": ("messages", BEFORE), "completion": ("messages", "The accepted answer.")},
    "sft/together": {"messages": ("messages", CONVERSATION)},
    "sft/llamafactory": {"conversations": ("turns", CONVERSATION)},
    "preference/openai": {
        "input": ("input", BEFORE),
        "preferred_output": ("messages", BETTER),
        "non_preferred_output": ("messages", WORSE),
    },
    "preference/trl": {
        "prompt": ("messages", BEFORE),
        "chosen": ("messages", BETTER),
        "rejected": ("messages", WORSE),
    },
    "preference/axolotl": {
        "messages": ("messages", BEFORE),
        "chosen": ("message", BETTER),
        "rejected": ("message", WORSE),
    },
    "preference/llamafactory": {
        "conversations": ("turns", BEFORE),
        "chosen": ("turn", BETTER),
        "rejected": ("turn", WORSE),
    },
}
"""The fields that every row of a target has. What only some rows have, such as `tools`, a card cannot say."""

PARTS: Final[Mapping[Shape, tuple[str, ...]]] = {
    "text": (),
    "message": ("role", "content"),
    "messages": ("role", "content"),
    "turn": ("from", "value"),
    "turns": ("from", "value"),
    "input": ("role", "content"),
}
SEVERAL: Final = frozenset({"messages", "turns", "input"})

KINDS: Final = {
    "rag": "accepted answers, to be retrieved as worked examples",
    "sft": "prompts with the accepted answer, for supervised fine-tuning",
    "preference": "prompts with a better and a worse answer, for preference tuning",
}


def card(
    dataset_id: str, kind: str, target: str, files: Sequence[ProductFile], pii: Mapping[str, str]
) -> dict[str, Any]:
    """The card as JSON-LD. `pii` is the policy, by class."""
    rows = [file for file in files if file.name.endswith(".jsonl")]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": dataset_id,
        "description": f"Stillhouse export: {KINDS[kind]}, in the form of {target}. Every line has its"
        " provenance beside it; what was left out is listed with its reason.",
        "version": "1.0.0",
        "isLiveDataset": False,
        "rai:dataCollection": "Runs of language models at work, recorded with verdicts of validators and"
        " people's feedback.",
        "rai:personalSensitiveInformation": [
            f"{name}: {'masked' if action == 'mask' else action}" for name, action in sorted(pii.items())
        ],
        "rai:dataBiases": "Holds what validators and people accepted; what they do not see is not in it.",
        "distribution": [_file_object(file) for file in rows],
        "recordSet": [
            _record_set(file, FIELDS[f"{kind}/{target}"])
            for file in rows
            if file.lines and file.name in ("train.jsonl", "validation.jsonl", "holdout.jsonl")
        ],
    }


def dataset_info(dataset_id: str, kind: str) -> dict[str, Any]:
    """What LLaMA-Factory is told of the files: the entries of its `dataset_info.json`."""
    columns = {"messages": "conversations", "system": "system"}
    if kind == "preference":
        columns |= {"chosen": "chosen", "rejected": "rejected"}
    entry = {"formatting": "sharegpt", "columns": columns, "ranking": kind == "preference"}
    return {
        f"{dataset_id}-{split}": {"file_name": f"{split}.jsonl", **entry}
        for split in ("train", "validation", "holdout")
    }


def _file_object(file: ProductFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "contentUrl": file.name,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": "application/jsonlines",
        "sha256": file.sha256,
    }


def _record_set(file: ProductFile, fields: Mapping[str, tuple[Shape, str]]) -> dict[str, Any]:
    name = file.name.removesuffix(".jsonl")
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"The lines of {file.name}.",
        "field": [
            _field(file.name, f"{name}/{column}", column, shape, description)
            for column, (shape, description) in fields.items()
        ],
    }


def _field(file: str, name: str, column: str, shape: Shape, description: str) -> dict[str, Any]:
    field = {"@type": "cr:Field", "@id": name, "name": name, "description": description}
    source = {"fileObject": {"@id": file}, "extract": {"column": column}}
    if shape == "text":
        return {**field, "dataType": "sc:Text", "source": source}
    inner = [{"jsonPath": "messages"}] if shape == "input" else []
    parts = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{part}",
            "name": f"{name}/{part}",
            "dataType": "sc:Text",
            "source": {**source, "transform": [*inner, {"jsonPath": part}]},
        }
        for part in PARTS[shape]
    ]
    return {**field, "repeated": shape in SEVERAL, "subField": parts}
