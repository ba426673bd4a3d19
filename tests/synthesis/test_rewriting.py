"""Rewriting: what is changed are words, what comes along is the rest of the row."""

import dataclasses
import json
from pathlib import Path

import pytest

from gristmill.errors import InputError
from gristmill.generate.infilling import Filling
from gristmill.generate.load import Loaded, load_run
from gristmill.generate.sequences import Written
from gristmill.objectives.causal import Causal
from gristmill.objectives.denoise import Denoise
from gristmill.objectives.masked import Masked
from gristmill.synthesis import paraphrase, translation
from gristmill.synthesis.paraphrase import GAP, ParaphraseSettings, paraphrase_for
from gristmill.synthesis.rewriting import RewriteConfig, Row, read_rows, rewrite
from gristmill.synthesis.translation import BackTranslation, TranslationSettings, sentences_of
from tests.synthesis.checkpoints import SENTENCES, checkpoint

BOLD = ParaphraseSettings(rate=0.6, least_probability=0.0)
SEEDS = list(range(len(SENTENCES)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_run(checkpoint(tmp_path_factory.mktemp("encoder") / "model", Masked()))


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_run(checkpoint(tmp_path_factory.mktemp("writer") / "model", Denoise()))


def test_words_change_and_nothing_else(encoder: Loaded) -> None:
    rewritten = paraphrase_for(encoder, BOLD)(SENTENCES, SEEDS)
    assert sum(each.changes for each in rewritten) > 3
    for before, after in zip(SENTENCES, rewritten, strict=True):
        signs = [character for character in before if not character.isalpha()]
        assert [character for character in after.text if not character.isalpha()] == signs
        assert len(after.text.split()) == len(before.split())
        assert (after.changes > 0) == (after.text != before)


def test_a_text_depends_on_its_own_seed_not_on_its_neighbours(encoder: Loaded) -> None:
    rewriter = paraphrase_for(encoder, BOLD)
    together = rewriter(SENTENCES, SEEDS)
    assert rewriter(SENTENCES[2:3], SEEDS[2:3]) == together[2:3]
    assert rewriter(SENTENCES, [seed + 1 for seed in SEEDS]) != together


def test_what_the_model_finds_unlikely_is_not_written(encoder: Loaded) -> None:
    certain = dataclasses.replace(BOLD, least_probability=0.999)
    assert [each.text for each in paraphrase_for(encoder, certain)(SENTENCES, SEEDS)] == SENTENCES
    assert [
        each.text for each in paraphrase_for(encoder, ParaphraseSettings(rate=0.0))(SENTENCES, SEEDS)
    ] == SENTENCES


def test_a_text_longer_than_the_model_reads_is_rewritten_throughout(encoder: Loaded) -> None:
    text = " ".join(SENTENCES[:5] * 40)
    (after,) = paraphrase_for(encoder, BOLD)([text], [0])
    before_words, words = text.split(), after.text.split()
    changed = [i for i, (a, b) in enumerate(zip(before_words, words, strict=True)) if a != b]
    assert min(changed) < 100
    assert max(changed) > len(words) - 100


def test_an_encoder_decoder_fills_gaps_and_a_bad_answer_leaves_the_text(
    writer: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def answers(model, tokenizer, texts, settings, **_):
        shown.extend(texts)
        found = []
        for number, text in enumerate(texts):
            gaps = tuple(" grey" for _ in range(text.count(GAP)))
            filled = text.replace(GAP, " grey")
            bad = [(None, "end"), (gaps, "length"), (("\ufffd",) * len(gaps), "end")]
            gaps_now, finish = bad[number % 4 - 1] if number % 4 else (gaps, "end")
            found.append(Filling(text=filled, gaps=gaps_now, finish=finish))
        return found

    monkeypatch.setattr(paraphrase, "infill", answers)
    rewritten = paraphrase_for(writer, BOLD)(SENTENCES[:5], SEEDS[:5])
    assert len(shown) == 5
    for number, (before, after) in enumerate(zip(SENTENCES[:5], rewritten, strict=True)):
        if number % 4:
            assert after == (before, 0)
        else:
            assert after.changes == shown[number].count(GAP) > 0
            assert " grey" in after.text
            assert after.text.startswith(before.split()[0]), "the first word stays"


def test_a_model_that_has_learned_nothing_leaves_texts_as_they_are(writer: Loaded) -> None:
    for before, after in zip(SENTENCES, paraphrase_for(writer, BOLD)(SENTENCES, SEEDS), strict=True):
        assert after.text == before or after.changes


def test_a_causal_decoder_and_a_tokenizer_without_spaces_are_refused(tmp_path: Path) -> None:
    causal = load_run(checkpoint(tmp_path / "causal", Causal()))
    with pytest.raises(InputError, match="a causal decoder can't rewrite") as refused:
        paraphrase_for(causal, BOLD)
    assert "corpus teach" in str(refused.value.hint)


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two!\nThree", ["One.", " Two!", "\n", "Three"]),
        ("他来了。“走吧！”她说", ["他来了。", "“走吧！”", "她说"]),
        ("Pi is 3.14, he said.", ["Pi is 3.14, he said."]),
        ("\n\n", ["\n", "\n"]),
        ("", []),
    ],
)
def test_sentences_together_are_the_text(text: str, sentences: list[str]) -> None:
    assert sentences_of(text) == sentences
    assert "".join(sentences_of(text)) == text


def test_each_sentence_goes_there_and_back(writer: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def says(model, sources, settings, *, start, end, seeds, **_):
        """There in capitals, back in small letters; a sentence with a king never comes to its end."""
        texts = [writer.tokenizer.decode(source) for source in sources]
        asked.append(texts)
        change = str.upper if len(asked) == 1 else str.lower
        return [
            Written(
                tokens=(*writer.tokenizer.encode(change(text)), end),
                finish="length" if "king" in text else "end",
            )
            for text in texts
        ]

    monkeypatch.setattr(translation, "generate_sequences", says)
    text = f"{SENTENCES[0]} {SENTENCES[1]}\n\n1, 2, 3.\n{SENTENCES[2]}"
    (after,) = BackTranslation(writer, writer, TranslationSettings())([text], [0])
    assert after.text == f"{SENTENCES[0]} {SENTENCES[1].lower()}\n\n1, 2, 3.\n{SENTENCES[2].lower()}"
    assert after.changes == 2
    assert [len(texts) for texts in asked] == [3, 2], "what has no letters, or no answer, does not come back"


def test_only_encoder_decoders_translate(writer: Loaded, encoder: Loaded) -> None:
    with pytest.raises(InputError, match='the model on the way back is of kind "encoder"'):
        BackTranslation(writer, encoder, TranslationSettings())


# --- rows -------------------------------------------------------------------------------------------------------------


def rows_of(out: Path) -> list[dict]:
    files = sorted((out / "texts").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().split("\n") if line]


def test_what_else_a_row_holds_comes_along(encoder: Loaded, tmp_path: Path) -> None:
    path = tmp_path / "reviews.jsonl"
    path.write_text(
        "".join(json.dumps({"review": text, "label": n % 2, "license": "CC0-1.0"}) + "\n" for n, text in enumerate(SENTENCES))
    )  # fmt: skip
    rows = read_rows([str(path)], "review")
    made = rewrite(rows, RewriteConfig(copies=3, paraphrase=BOLD), tmp_path / "out", models=[encoder])
    found = rows_of(made.path)
    assert len(found) > 10
    for row in found:
        number = row["synthetic"]["number"]
        assert row["synthetic"]["row"] == number // 3
        assert (row["label"], row["license"]) == (number // 3 % 2, "CC0-1.0")
        assert row["text"] != SENTENCES[number // 3]
        assert row["synthetic"]["models"] == [encoder.artifact.manifest.content_hash]
    assert len({row["text"] for row in found}) == len(found)


def test_without_a_model_there_is_noise_in_characters(tmp_path: Path) -> None:
    rows = [Row(text, {}, "s") for text in SENTENCES]
    made = rewrite(rows, RewriteConfig(), tmp_path / "out")
    found = rows_of(made.path)
    assert found
    assert {row["synthetic"]["by"] for row in found} == {"characters"}
    assert made.manifest.parents == {}


def test_bad_numbers_are_refused() -> None:
    for make in (
        lambda: ParaphraseSettings(rate=2.0),
        lambda: ParaphraseSettings(turns=0),
        lambda: TranslationSettings(longest=1.0),
        lambda: RewriteConfig(copies=0),
    ):
        with pytest.raises(InputError):
            make()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(InputError, match="no texts"):
        read_rows([str(tmp_path / "empty.txt")])
