"""Weights on disk."""

import json

import pytest
import torch

from gristmill.errors import CorruptArtifact, InputError
from gristmill.model.checkpoint import load_model, save_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.transformer import Transformer


@pytest.fixture
def model(tmp_path):
    made = Transformer(resolve(ModelSettings(depth=1, width=32, heads=2), vocab_size=20, row_tokens=8))
    made.initialise(torch.Generator().manual_seed(0))
    save_model(tmp_path, made.config, made.state_dict())
    return made.eval()


@torch.no_grad()
def test_a_model_comes_back_as_it_was(model, tmp_path):
    back = load_model(tmp_path)
    assert back.config == model.config
    assert not back.training
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(back.logits(back(tokens)), model.logits(model(tokens)))


def test_weights_can_be_kept_in_bfloat16(model, tmp_path):
    back = load_model(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in back.parameters()} == {torch.bfloat16}


@pytest.mark.usefixtures("model")
def test_a_missing_damaged_or_foreign_file_is_named(tmp_path):
    config = tmp_path / "model.json"
    table = json.loads(config.read_text())
    config.write_text(json.dumps(table | {"width": 64}))
    with pytest.raises(CorruptArtifact, match="does not fit"):
        load_model(tmp_path)
    config.write_text("{")
    with pytest.raises(CorruptArtifact, match=r"model\.json is damaged"):
        load_model(tmp_path)
    config.write_text(json.dumps(table | {"colour": "red"}))
    with pytest.raises(InputError, match="colour"):
        load_model(tmp_path)
    config.unlink()
    with pytest.raises(InputError, match="holds no model"):
        load_model(tmp_path)
