"""From the shipped texts to a model that writes, in Python: what `gristmill run` does, stage by stage.

python examples/text_to_model.py [FOLDER] [STEPS]
"""

import sys
from pathlib import Path

from gristmill.config import from_dict
from gristmill.generate import SamplingSettings, complete, load_run, prepare
from gristmill.pipeline import Quiet, Recipe, run

TEXTS = Path(__file__).resolve().parents[1] / "recipes" / "texts"


def main(folder: Path, steps: int) -> None:
    recipe = from_dict(
        Recipe,
        {
            "name": "example",
            "corpus": {"sources": [str(TEXTS)], "exclude": ["README.md"], "document_separator": "%"},
            "tokenizer": {"vocab_size": 600},
            "model": {"depth": 2, "width": 64},
            "pretrain": {"budget": f"{steps} steps", "row_tokens": 64, "batch_tokens": 1024},
        },
    )
    run(recipe, folder, Quiet())
    loaded = load_run(folder)
    sampling = SamplingSettings(max_new_tokens=40, seed=1)
    for completion in complete(prepare(loaded.model), loaded.tokenizer, ["And God said", "春風"], sampling):
        print(completion.prompt + completion.text)


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example"),
        int(sys.argv[2]) if len(sys.argv) > 2 else 200,
    )
