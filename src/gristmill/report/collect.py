"""The facts of a run: every number of the page, read from the manifests of its stages and from `run.json`."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.artifact import MANIFEST, Artifact, open_artifact
from gristmill.errors import InputError

__all__ = ["STAGES", "energy", "find_stages", "gather", "read_json", "thin_curve"]

STAGES = {
    "corpus": "corpus",
    "tokenizer": "tokenizer",
    "shards": "shards",
    "model": "checkpoint",
    "evaluation": "evaluation",
}
"""The directory of each stage in a run, in the order of the work, and the kind of artifact that it holds."""

FORMAT_VERSION = 1
CURVE_POINTS = 240  # two per unit of a picture's width would not be seen
WATTS_PER_CORE = (
    10.0  # a server CPU's rating is 3 to 5 W per core; the rest is memory, fans and the power supply
)
WATTS_PER_GPU = 400.0

SENTENCES = {
    "en": "The mill grinds slowly, but it grinds exceedingly fine: 1,024 sacks by daybreak.",
    "zh": "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
}
"""What the tokenizer is shown splitting. The same in every report, so that two tokenizers can be compared."""


def gather(run_directory: Path) -> tuple[dict[str, Any], dict[str, Artifact]]:
    """Returns the facts of a run as JSON values, and the artifacts that they were read from, by stage.

    A stage that has not run is None in the facts.

    Raises:
        InputError: there is no run in the directory.
        CorruptArtifact: a file that the report reads is not the one that its manifest names.
    """
    stages = find_stages(run_directory)
    run = read_json(run_directory / "run.json")
    if not stages and not (run_directory / "run.json").exists():
        hint = "`gristmill runs` lists the runs below a folder"
        if not run_directory.exists():
            raise InputError(f"there is no directory {run_directory}", hint)
        raise InputError(f"{run_directory} holds no run: neither run.json nor a finished stage", hint)
    metrics = {stage: stages[stage].manifest.metrics if stage in stages else None for stage in STAGES}
    evaluation = metrics["evaluation"]
    facts: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": run.get("name") or run_directory.resolve().name,
        "started_at": run.get("started_at"),
        "command": run.get("command"),
        "machine": run.get("machine") or {},
        "versions": run.get("versions") or {},
        "recipe": run.get("recipe") or {},
        "interrupted": [stage for stage in STAGES if (run_directory / f".{stage}.partial").is_dir()],
        "corpus": metrics["corpus"],
        "tokenizer": _tokenizer(stages.get("tokenizer")),
        "splits": _splits(stages.get("tokenizer"), metrics["corpus"]),
        "shards": metrics["shards"],
        "model": metrics["model"],
        "settings": _settings(stages.get("model"), run.get("recipe") or {}),
        "curve": thin_curve(_read_lines(stages.get("model"), "curve.jsonl")),
        "evaluation": evaluation,
        "overall": (evaluation or {}).get("overall") or (metrics["model"] or {}).get("validation"),
        "samples": _read_lines(stages.get("evaluation"), "samples.jsonl"),
        "cost": _cost(stages, run.get("machine") or {}),
        "lineage": _lineage(stages),
    }
    return facts, stages


def find_stages(run_directory: Path) -> dict[str, Artifact]:
    """Returns the finished stages of a run, in the order of the work; also those that it took from elsewhere."""
    found = {
        stage: open_artifact(run_directory / stage, kind, verify=False)
        for stage, kind in STAGES.items()
        if (run_directory / stage / MANIFEST).is_file()
    }
    names = {kind: stage for stage, kind in STAGES.items()}
    waiting = list(found.values())
    while waiting:
        artifact = waiting.pop()
        for parent in artifact.manifest.parents.values():
            stage = names.get(parent["kind"])
            path = artifact.path / parent["path"]
            if stage and stage not in found and (path / MANIFEST).is_file():
                found[stage] = open_artifact(path, parent["kind"], verify=False)
                waiting.append(found[stage])
    return {stage: found[stage] for stage in STAGES if stage in found}


def thin_curve(
    lines: Iterable[Mapping[str, Any]], points: int = CURVE_POINTS
) -> dict[str, list[dict[str, float]]]:
    """Returns the training curve in at most `points` means with their range, and every validation.

    Lines of one step are merged, the later one wins: a resumed run writes some steps again.
    """
    steps: dict[int, dict[str, Any]] = {}
    for line in lines:
        finite = {k: v for k, v in line.items() if isinstance(v, int | float) and math.isfinite(v)}
        if "step" in finite:
            steps.setdefault(int(finite["step"]), {}).update(finite)
    ordered = [steps[step] for step in sorted(steps)]
    training = [line for line in ordered if "loss_nats" in line]
    size = max(1, math.ceil(len(training) / points))
    return {
        "training": [_mean(training[i : i + size]) for i in range(0, len(training), size)],
        "validation": [line for line in ordered if "validation_nats_per_token" in line],
    }


def energy(cpu_seconds: float | int, gpu_seconds: float | int) -> dict[str, Any]:
    """Returns watt-hours estimated from busy seconds, and the assumption in words."""
    assumption = f"{WATTS_PER_CORE:.0f} W for each busy CPU core, memory and power supply included"
    if gpu_seconds:
        assumption += f", and {WATTS_PER_GPU:.0f} W for the GPU while the model trained"
    watt_hours = (cpu_seconds * WATTS_PER_CORE + gpu_seconds * WATTS_PER_GPU) / 3600
    return {"watt_hours": round(watt_hours, 3), "assumption": assumption}


def read_json(path: Path) -> dict[str, Any]:
    """Returns a JSON object, empty where there is no such file.

    Raises:
        InputError: the file is there and is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} can't be read: {error}", "run the same recipe again: it is written anew"
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object", "run the same recipe again: it is written anew")
    return value


def _read_lines(artifact: Artifact | None, name: str) -> list[dict[str, Any]]:
    if artifact is None or name not in artifact.manifest.files:
        return []
    artifact.verify([name])
    text = (artifact.path / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _mean(lines: Sequence[Mapping[str, float | int]]) -> dict[str, float]:
    names = [name for name in lines[-1] if not name.startswith("validation_")]
    mean: dict[str, float] = {}
    for name in names:
        values = [line[name] for line in lines if name in line]
        mean[name] = float(f"{sum(values) / len(values):.6g}")
    losses = [line["loss_nats"] for line in lines]
    return mean | {"loss_nats_low": min(losses), "loss_nats_high": max(losses)}


def _tokenizer(artifact: Artifact | None) -> dict[str, Any] | None:
    """The metrics with the kind of the tokenizer, which is a setting: by name, or a table that has the name."""
    if artifact is None:
        return None
    kind = artifact.manifest.config.get("kind")
    return {"kind": kind.get("name") if isinstance(kind, dict) else kind, **artifact.manifest.metrics}


def _splits(artifact: Artifact | None, corpus: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """How the tokenizer splits a sentence of each of the corpus's languages (of both where none is known)."""
    if artifact is None or "tokenizer.json" not in artifact.manifest.files:
        return []
    import tokenizers

    artifact.verify(["tokenizer.json"])
    tokenizer = tokenizers.Tokenizer.from_file(str(artifact.path / "tokenizer.json"))
    known = set((corpus or {}).get("languages") or ()) & set(SENTENCES)
    result = []
    for language, text in SENTENCES.items():
        if known and language not in known:
            continue
        encoding = tokenizer.encode(text, add_special_tokens=False)
        pieces: list[dict[str, Any]] = []
        end = 0
        for _, stop in encoding.offsets:
            if stop > end:  # a space that the offsets leave out belongs to the piece after it
                pieces.append({"text": text[end:stop], "tokens": 1})
                end = stop
            elif pieces:  # one more token for the same character: a part of its bytes
                pieces[-1]["tokens"] += 1
        result.append({"language": language, "tokens": len(encoding.ids), "text": text, "pieces": pieces})
    return result


def _settings(model: Artifact | None, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the model and of its training, from the checkpoint itself or else from the recipe."""
    config = model.manifest.config if model else {}
    return {name: config.get(name) or recipe.get(name) or {} for name in ("model", "pretrain")}


def _cost(stages: Mapping[str, Artifact], machine: Mapping[str, Any]) -> dict[str, Any]:
    spent: list[dict[str, Any]] = [
        {"stage": stage, **artifact.manifest.cost} for stage, artifact in stages.items()
    ]
    elapsed = sum(stage.get("elapsed_seconds", 0.0) for stage in spent)
    cpu = sum(stage.get("cpu_seconds", 0.0) for stage in spent)
    gpu = sum(
        stage.get("elapsed_seconds", 0.0)
        for stage in spent
        if stage["stage"] == "model" and machine.get("gpu")
    )
    return {"stages": spent, "elapsed_seconds": elapsed, "cpu_seconds": cpu, "energy": energy(cpu, gpu)}


def _lineage(stages: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    now = {artifact.kind: (stage, artifact.manifest.content_hash) for stage, artifact in stages.items()}
    rows = []
    for stage, artifact in stages.items():
        parents = []
        for role, entry in artifact.manifest.parents.items():
            name, present = now.get(entry["kind"], (role, None))
            state = (
                "missing"
                if present is None
                else "unchanged"
                if present == entry["content_hash"]
                else "replaced since"
            )
            parents.append({"stage": name, "content_hash": entry["content_hash"], "state": state})
        manifest = artifact.manifest
        rows.append(
            {
                "stage": stage,
                "kind": manifest.kind,
                "content_hash": manifest.content_hash,
                "created_at": manifest.created_at,
                "size_bytes": sum(file["size_bytes"] for file in manifest.files.values()),
                "seed": manifest.seed,
                "gristmill_version": manifest.gristmill_version,
                "parents": parents,
            }
        )
    return rows
