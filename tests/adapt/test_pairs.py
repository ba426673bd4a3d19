"""Classes of pairs of texts, English and Chinese, with models of each kind."""

import itertools
from pathlib import Path

import pytest
from tests.adapt.small import FAMILIES, learned, tokenizer_of

from gristmill.adapt.tables import read_table
from gristmill.adapt.tasks.classification import Classification


@pytest.mark.shared_data
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["en_nli_rte", "zh_nli_ocnli"])
def test_a_small_model_of_each_family_learns_pairs_by_heart(
    shared_data: Path, tmp_path: Path, name: str, family: str
) -> None:
    task = Classification(text=("text1", "text2"))
    rows = list(itertools.islice(read_table(str(shared_data / name / "train.jsonl.gz")), 100))
    examples = task.read(rows, labelled=True)
    tokenizer = tokenizer_of([example.key for example in examples], tmp_path / "tokenizer", 600)
    made = learned(task, examples[:12], family, tokenizer, tmp_path / "run", epochs=10)
    (second,) = {item.encoded.second < len(item.encoded.tokens) for item in made.items}
    assert second
    assert made.tuned.losses[-1] < 0.7 * made.tuned.losses[0]
    assert made.result.figures["accuracy"].value > 0.8
