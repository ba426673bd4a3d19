"""Task models as directories that stock transformers loads, and LoRA's updates as `peft` reads them.

What is written is loaded with the stock class before it counts: on texts in two languages, alone, in pairs, cut, and with padding,
its tokens have to be ours, and its scores too but for float32's rounding.
"""

import copy
import dataclasses
import importlib
import itertools
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gristmill.adapt.adapting import KIND, UPDATES
from gristmill.adapt.encoding import Encoder, Item
from gristmill.adapt.heads import Head
from gristmill.adapt.net import Net
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.stock import TASKS, Stock, stock_for
from gristmill.adapt.tuner import TuneSettings
from gristmill.adapt.vectors import Vectors
from gristmill.adapt.ways.lora import Lora
from gristmill.artifact import open_artifact, write_json
from gristmill.batch import Visibility
from gristmill.config import from_dict
from gristmill.errors import InputError, RunError
from gristmill.generate.load import Loaded
from gristmill.generate.portable import PROBE, compare_tokens, export_run, facts, placed, write_tokenizer
from gristmill.model.checkpoint import read_tensors, write_tensors
from gristmill.model.exchange import (
    ROUNDINGS,
    TOLERANCE,
    largest_difference,
    outputs_of_both,
    refuse_unportable,
    special_token_fields,
    to_sentence_transformers,
)
from gristmill.tokenizer.framing import document_frame, frame

__all__ = ["export_task", "export_updates", "is_adapted"]

TEXTS = (
    "Call me Ishmael.",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.",
    "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？",
    PROBE,
)
"""What both are asked; Melville 1851, Austen 1813, the Analects."""

TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS", "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS", "Model": "FEATURE_EXTRACTION",
}  # fmt: skip
"""How `peft` calls what a class is for, by the end of its name; it has no word for multiple choice."""

Texts = tuple[str, ...]


def is_adapted(path: Path) -> bool:
    """Returns whether a directory is one that `gristmill adapt` wrote."""
    return (path / "manifest.json").is_file() and open_artifact(path, verify=False).kind == KIND


def export_task(path: Path, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Writes a directory that a stock class, its pipeline and `AutoTokenizer` load, and returns what was compared.

    Embeddings are written for sentence-transformers, and what writes its answers itself as `export_run` does.

    Args:
        path: what `gristmill adapt` wrote.
        out: the directory to write; it appears whole.
        force: replace what is in the directory.

    Raises:
        InputError: no stock class has this head, or reads as this model does; the message says what can be exported.
        RunError: tokens or scores differ.
    """
    predictor = Predictor(path, precision="float32", device=torch.device("cpu"))
    net = predictor.net
    _check(net)
    if net.head is None:
        return export_run(Loaded(net.model, net.tokenizer, predictor.artifact), out, force=force)
    stock = stock_for(_name(predictor), net.model.config)
    net = _scaled(predictor)
    with placed(out, force) as directory:
        state = stock.state(net.model.state_dict())
        if isinstance(net.head, Head):
            state |= stock.head_state(net.head)
        _write(directory, predictor, stock, state)
        if isinstance(net.head, Vectors):
            to_sentence_transformers(
                net.model.config,
                directory,
                pooling={"first": "cls"}.get(net.head.pooling, net.head.pooling),  # type: ignore[arg-type]
                maximum_tokens=predictor.encoder.maximum_tokens,
            )
        difference = _compared(net, predictor, directory, _loaded(stock, directory), stock)
    return facts(out, net.model.config, predictor.artifact, difference) | {"class": stock.architecture}


def export_updates(path: Path, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Writes what LoRA learned, and the head, as `PeftModel.from_pretrained(base, out)` reads them.

    `base` is the model that was adapted, in the stock class of the task. One of our matrices is several of theirs where it holds
    queries, keys and values, or gate and input: then each has its rows of B, and all have the same A.

    Raises:
        InputError: the model was not adapted with LoRA, no stock class fits, or `peft` is not installed.
        RunError: scores differ.
    """
    predictor = Predictor(path, precision="float32", device=torch.device("cpu"))
    if not (path / UPDATES).is_file():
        raise InputError(
            f"{path} was not adapted with LoRA, so there are no updates beside its weights",
            'leave --adapter out to export the whole model, or adapt it with tune.way = "lora"',
        )
    way = from_dict(TuneSettings, predictor.artifact.manifest.config["tune"]).way
    assert isinstance(way, Lora)
    net = _scaled(predictor)
    _check(net)
    peft = _peft()
    stock = stock_for(None if net.head is None else _name(predictor), net.model.config)
    kept = {name: tensor.float() for name, tensor in read_tensors(path / UPDATES).items()}
    weights = {name: tensor.detach().float() for name, tensor in net.model.state_dict().items()}
    pieces = _pieces(stock, weights, kept)
    prefix = "base_model.model."
    tensors = {f"{prefix}{name}.lora_A.weight": a.clone() for name, (a, _) in pieces.items()}
    tensors |= {f"{prefix}{name}.lora_B.weight": b.contiguous() for name, (_, b) in pieces.items()}
    if isinstance(net.head, Head):
        tensors |= {prefix + name: tensor.clone() for name, tensor in stock.head_state(net.head).items()}
    with placed(out, force) as directory:
        write_tensors(tensors, directory / "adapter_model.safetensors")
        write_json(directory / "adapter_config.json", _adapter_config(stock, way, sorted(pieces)))
        base = directory / "base"
        base.mkdir()
        before = {
            name: tensor - way.alpha / way.rank * kept[f"{own}.b"] @ kept[f"{own}.a"]
            if f"{(own := name.removesuffix('.weight'))}.a" in kept
            else tensor
            for name, tensor in weights.items()
        }
        _write(base, predictor, stock, stock.state(before))
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # peft 0.21 asks transformers 5 for what it deprecates
            model = peft.PeftModel.from_pretrained(_loaded(stock, base), directory).eval()
        difference = _compared(net, predictor, base, model, stock)
        shutil.rmtree(base)
    return facts(out, net.model.config, predictor.artifact, difference) | {"class": stock.architecture}


# --- what is written --------------------------------------------------------------------------------------------------


def _check(net: Net) -> None:
    """Raises InputError for what no class of transformers does, whatever its head."""
    config = net.model.config
    refuse_unportable(config)
    if net.prompt is not None:
        raise InputError(
            "learned vectors stand before each text of this model, and no class in transformers reads them",
            'adapt it with tune.way = "lora" or "full" to export it, or use it with `gristmill predict`',
        )
    if net.head is not None and config.kind == "decoder" and net.visibility is not Visibility.CAUSAL:
        raise InputError(
            f"this {config.family} reads all of a text at once, and its class in transformers only what stands before",
            "adapt a model that was trained with the objective causal, or an encoder",
        )


def _name(predictor: Predictor) -> str:
    return type(predictor.task).__module__.rpartition(".")[2]


def _closing(predictor: Predictor) -> tuple[int, ...] | None:
    """What stands behind a pair, if not what stands behind a text: a decoder tells behind the text that nothing in it is the answer."""
    net = predictor.net
    if net.model.config.kind != "decoder" or _name(predictor) != "reading":
        return None
    return document_frame(net.tokenizer.special, "decoder").after


def _scaled(predictor: Predictor) -> Net:
    """The net, whose head says numbers on the scale that people gave them."""
    net = predictor.net
    if _name(predictor) != "similarity" or not isinstance(net.head, Head):
        return net
    low, high = map(float, predictor.outputs)
    head = copy.deepcopy(net.head)
    parts = dict(head.out.named_parameters())
    if "bias" not in parts and low != 0.0:
        raise InputError(
            f"the numbers begin at {low:g}, and the class of this family has no bias that says so",
            "adapt it to numbers that begin at 0, or adapt an encoder",
        )
    with torch.no_grad():
        for name, parameter in parts.items():
            parameter.mul_(high - low).add_(low if name == "bias" else 0.0)
    return dataclasses.replace(net, head=head)


def _write(directory: Path, predictor: Predictor, stock: Stock, state: Mapping[str, Tensor]) -> None:
    """Writes weights, configuration and tokenizer."""
    net, tokenizer = predictor.net, predictor.net.tokenizer
    config = net.model.config
    special = dict(tokenizer.special)
    pad = next((special[name] for name in ("pad", "eos", "bos", "sep") if name in special), None)
    theirs = stock.fields() | {"dtype": "float32", "torch_dtype": "float32"}
    theirs |= special_token_fields(config, special if pad is None else special | {"pad": pad})
    theirs |= _labels(predictor, stock)
    write_json(directory / "config.json", theirs)
    write_tensors(
        {name: tensor.detach().float().contiguous() for name, tensor in state.items()},
        directory / "model.safetensors",
    )
    write_tokenizer(
        tokenizer,
        config,
        directory,
        frame(special, config.kind),
        between=document_frame(special, config.kind).after,
        closing=_closing(predictor),
        maximum_tokens=predictor.encoder.maximum_tokens,
        pad=None if pad is None else tokenizer.name(pad),
    )


def _labels(predictor: Predictor, stock: Stock) -> dict[str, Any]:
    """The fields of config.json that say what the scores stand for."""
    if stock.end not in ("ForSequenceClassification", "ForTokenClassification"):
        return {"classifier_pooling": "cls"} if stock.end == "ForMultipleChoice" else {}
    name = _name(predictor)
    outputs = ("score",) if name == "similarity" else predictor.outputs
    fields: dict[str, Any] = {
        "id2label": {str(i): label for i, label in enumerate(outputs)},
        "label2id": {label: i for i, label in enumerate(outputs)},
    }
    if stock.end == "ForSequenceClassification":
        fields |= {"problem_type": TASKS[name][1], "classifier_pooling": "cls"}
    return fields


def _pieces(
    stock: Stock, weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each of their matrices by its module's name: where B goes when it stands in the place of the matrix.

    Which of our matrices one of theirs is of is told by sending numbers the same way.
    """
    owners = [name.removesuffix(".b") for name in sorted(kept) if name.endswith(".b")]
    marks = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    marks |= {
        f"{own}.weight": torch.full_like(weights[f"{own}.weight"], i) for i, own in enumerate(owners, 1)
    }
    sent = stock.state(dict(weights) | {f"{own}.weight": kept[f"{own}.b"] for own in owners})
    found = {}
    for name, mark in stock.state(marks).items():
        if i := int(mark.max()):
            b = sent[name].T if stock.config.family == "gpt2" else sent[name]
            found[name.removesuffix(".weight")] = (kept[f"{owners[i - 1]}.a"], b)
    return found


def _adapter_config(stock: Stock, way: Lora, modules: Sequence[str]) -> dict[str, Any]:
    """What `adapter_config.json` says, in words that every version of `peft` reads."""
    usual = "SEQ_2_SEQ_LM" if stock.config.kind == "encoder-decoder" else "CAUSAL_LM"
    # "bert.pooler.dense" is kept with its parent, as `modules_to_save` names modules and not layers of them
    saved = sorted({name.removesuffix(".dense").removesuffix(".norm") for name in stock.head.values()})
    return {
        "peft_type": "LORA",
        "task_type": TASK_TYPES.get(stock.end, None if stock.end else usual),
        "base_model_name_or_path": None,
        "r": way.rank,
        "lora_alpha": int(way.alpha) if way.alpha == int(way.alpha) else way.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": stock.config.family == "gpt2",
        "target_modules": list(modules),
        "modules_to_save": saved or None,
        "inference_mode": True,
    }


# --- what is compared -------------------------------------------------------------------------------------------------


def _loaded(stock: Stock, directory: Path) -> Any:
    try:
        import transformers
    except ImportError:
        raise InputError(
            "an export is compared with transformers, which is not installed",
            'pip install "gristmill[transformers]"',
        ) from None
    return getattr(transformers, stock.architecture).from_pretrained(directory).float().eval()


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError:
        raise InputError(
            "updates are compared with what peft makes of them, which is not installed", "pip install peft"
        ) from None


@torch.no_grad()
def _compared(net: Net, predictor: Predictor, directory: Path, model: Any, stock: Stock) -> float:
    """The largest difference between scores, ours and theirs, where tokens agree.

    Raises:
        RunError: tokens or scores differ.
    """
    if net.head is None:
        each = [largest_difference(*pair) for pair in outputs_of_both(net.model, model)]
        return _small(max(each), 0.0, stock)
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    most = predictor.encoder.maximum_tokens
    long = " ".join(TEXTS)
    while len(net.tokenizer.encode(long)) <= most:
        long = f"{long} {long}"
    alone: list[Texts] = [(text,) for text in (*TEXTS, long)]
    pairs: list[Texts] = [
        *itertools.pairwise(TEXTS),
        (long, TEXTS[0]),
        (TEXTS[1], long),
        (long, long),
    ]
    difference, far = 0.0, 0.0
    for texts in (alone, pairs):
        items = [_item(predictor, sides, number) for number, sides in enumerate(texts)]
        inputs = tokenizer(
            *map(list, zip(*texts, strict=True)), truncation=True, padding=True, return_tensors="pt"
        )
        kept = inputs["attention_mask"].bool()
        compare_tokens(
            [row[mask].tolist() for row, mask in zip(inputs["input_ids"], kept, strict=True)],
            [item.encoded.tokens for item in items],
        )
        ours = _our_scores(net, items)
        narrow = _their_scores(model, inputs, stock)
        far = max(far, largest_difference(narrow, _their_scores(model.double(), inputs, stock)))
        model.float()
        difference = max(difference, largest_difference(ours, narrow))
    return _small(difference, far, stock)


def _small(difference: float, rounding: float, stock: Stock) -> float:
    if not difference <= max(TOLERANCE, ROUNDINGS * rounding):
        raise RunError(
            f"the scores of {stock.architecture} differ from ours by {difference:.2g}, more than {TOLERANCE:g}",
            "nothing was written; please report this with the model's model.json",
        )
    return difference


def _item(predictor: Predictor, texts: Texts, number: int) -> Item:
    net, closing = predictor.net, _closing(predictor) or ()
    sides = [net.tokenizer.encode(text) for text in texts]
    if len(sides) == 1:
        return Item(predictor.encoder.text(*sides), None, number)
    room = predictor.encoder.maximum_tokens - len(closing)
    encoded = Encoder(net.tokenizer.vocabulary(), net.model.config, room).pair(*sides)
    return Item(dataclasses.replace(encoded, tokens=(*encoded.tokens, *closing)), None, number)


def _our_scores(net: Net, items: Sequence[Item]) -> Tensor:
    """Scores, or of what makes vectors the hidden states that they are made of."""
    if not isinstance(net.head, Head):
        return net.hidden(net.pack(items))
    scores = net.scores_of(items)
    return torch.from_numpy(np.stack(scores) if net.head.shape == "example" else np.concatenate(scores))


def _their_scores(model: Any, inputs: Mapping[str, Tensor], stock: Stock) -> Tensor:
    """Scores in our order: of examples, or of the tokens that are no padding, one text after the other."""
    kept = inputs["attention_mask"].bool()
    if stock.end == "ForMultipleChoice":
        choices: Tensor = model(**{name: tensor[None] for name, tensor in inputs.items()}).logits
        return choices[0][:, None]
    said = model(**inputs)
    if stock.end == "ForQuestionAnswering":
        return torch.stack([said.start_logits, said.end_logits], -1)[kept]
    scores: Tensor = said.last_hidden_state if stock.end == "Model" else said.logits
    return scores if stock.end == "ForSequenceClassification" else scores[kept]
