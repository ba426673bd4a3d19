"""Self-training: what is sure is taken, what a person has said stands, and it ends."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.augment.fits import QualityFit
from gristmill.augment.selftraining import (
    Example,
    SelfTrainingSettings,
    Voting,
    hold_out,
    self_train,
    temperature_for,
    write,
)
from gristmill.errors import InputError

ANIMALS, TOOLS = ["cat", "dog", "cow", "hen"], ["saw", "axe", "file", "drill"]


class Counting:
    """A naive Bayes classifier over words; another seed forgets one of its examples."""

    def __init__(self, examples: Sequence[Example], seed: int, sharpness: float = 1.0) -> None:
        self.classes = tuple(sorted({example.label for example in examples}))
        kept = [e for i, e in enumerate(examples) if not seed or i != seed % len(examples)]
        self.counts = {
            name: [word for e in kept if e.label == name for word in e.text.split()] for name in self.classes
        }
        self.sharpness = sharpness

    def probabilities(self, texts: Sequence[str], passes: int = 1) -> np.ndarray:
        rows = []
        for text in texts:
            scores = [
                sum(math.log((words.count(w) + 0.2) / (len(words) + 1)) for w in text.split())
                for words in self.counts.values()
            ]
            raised = np.exp(self.sharpness * (np.array(scores) - max(scores)))
            rows.append(raised / raised.sum())
        return np.repeat(np.array(rows)[None], passes, axis=0)


def fit(examples: Sequence[Example], seed: int) -> Counting:
    return Counting(examples, seed)


LABELLED = [Example("cat dog", "animal"), Example("saw axe", "tool")]
CHAIN = ["dog cow", "cow hen", "axe file", "file drill", "cow cow hen", "drill drill file"]
SURE = SelfTrainingSettings(threshold=0.6, balance="none")


def test_it_learns_words_that_no_label_has() -> None:
    """hen is only ever seen beside cow, and cow only beside dog, which is labelled."""
    before = fit(LABELLED, 0).probabilities(["hen", "drill"])[0]
    trained = self_train(fit, LABELLED, CHAIN, SURE)
    assert before[0] == pytest.approx([0.5, 0.5])
    assert trained.predictor.predict(["hen", "drill"]) == ["animal", "tool"]
    assert trained.best >= 1
    assert len(trained.pseudo_labels) == 6
    by_text = {label.text: label for label in trained.pseudo_labels}
    assert by_text["dog cow"].round < by_text["cow hen"].round, "what is sure comes first"
    assert [CHAIN[label.index] for label in trained.pseudo_labels] == [
        label.text for label in trained.pseudo_labels
    ]


@settings(max_examples=30)
@given(
    texts=st.lists(
        st.lists(st.sampled_from(ANIMALS + TOOLS), min_size=1, max_size=4).map(" ".join), max_size=20
    ),
    threshold=st.sampled_from([0.5, 0.7, 0.9]),
    shares=st.sampled_from([(0.3,), (0.2, 0.5, 1.0), (1.0, 1.0)]),
    balance=st.sampled_from(["labelled", "equal", "none"]),
)
def test_what_is_taken_is_sure_within_its_share_and_quota_and_never_a_labelled_text(
    texts: list[str], threshold: float, shares: tuple[float, ...], balance: str
) -> None:
    pool = [*texts, "cat dog", " saw axe "]
    chosen = SelfTrainingSettings(threshold=threshold, shares=shares, balance=balance)
    trained = self_train(fit, LABELLED, pool, chosen)
    distinct = {text.strip() for text in texts} - {"cat dog", "saw axe"}
    for made, share in zip(trained.rounds[1:], shares, strict=False):
        limit = math.ceil(share * len(distinct))
        assert sum(made.taken.values()) <= limit
        if balance != "none":
            assert all(count <= max(1, limit / 2) for count in made.taken.values())
    taken = [label.text.strip() for label in trained.pseudo_labels]
    assert len(set(taken)) == len(taken)
    assert not {"cat dog", "saw axe"} & set(taken)
    assert all(label.confidence >= threshold for label in trained.pseudo_labels)
    assert trained == trained_again(pool, chosen, trained)


def trained_again(pool: list[str], chosen: SelfTrainingSettings, first):
    """It is a function of its arguments; predictors themselves do not compare."""
    again = self_train(fit, LABELLED, pool, chosen)
    assert again.predictor.probabilities(ANIMALS).tolist() == first.predictor.probabilities(ANIMALS).tolist()
    return type(first)(first.predictor, again.pseudo_labels, again.rounds, again.best, again.stopped)


def test_a_label_that_a_person_gave_is_not_overruled() -> None:
    """The pool says a hundred times that a saw is among animals; the labelled text stays a tool's, once."""
    seen: list[list[Example]] = []

    def spying(examples: Sequence[Example], seed: int) -> Counting:
        seen.append(list(examples))
        return fit(examples, seed)

    self_train(spying, LABELLED, ["cat dog saw axe"] * 50 + ["saw axe"] * 50, SURE)
    for examples in seen:
        assert [example for example in examples if example.text == "saw axe"] == [Example("saw axe", "tool")]


def test_it_ends_where_nothing_changes() -> None:
    trained = self_train(
        fit, LABELLED, ["dog dog"], SelfTrainingSettings(threshold=0.6, shares=(1.0,) * 9, balance="none")
    )
    assert trained.stopped == "nothing changed"
    assert len(trained.rounds) == 2
    assert self_train(fit, LABELLED, [], SURE).stopped.startswith("no pseudo-label reached 0.6")
    assert self_train(fit, LABELLED, ["hen"], SURE).pseudo_labels == ()


def test_it_ends_where_validation_gets_worse_and_keeps_what_was_best() -> None:
    misleading = [f"{'cat ' * n}dog dog axe axe axe" for n in range(2, 5)]
    validation = [Example("axe", "tool"), Example("cat", "animal")]
    labelled = [Example("cat dog", "animal"), Example("saw axe file drill", "tool")]
    free = self_train(fit, labelled, misleading, SURE)
    held = self_train(fit, labelled, misleading, SURE, validation=validation)
    assert free.predictor.predict(["axe"]) == ["animal"], "it goes wrong"
    assert held.stopped == "validation got worse"
    assert held.rounds[held.best].accuracy == 1.0
    assert held.rounds[-1].accuracy == 0.5
    assert held.predictor.predict(["axe"]) == ["tool"]
    assert [made.number for made in held.rounds][:2] == [0, 1], "what was tried is told"


def test_validation_texts_are_not_learned_from() -> None:
    trained = self_train(fit, LABELLED, CHAIN, SURE, validation=[Example("cow hen", "animal")])
    assert "cow hen" not in {label.text for label in trained.pseudo_labels}


def test_folds_of_the_labelled_examples_stand_in_for_validation() -> None:
    """A fold is told by fits that have not seen it: a word that one label alone has is not known there."""
    labelled = [Example(f"cat {i}", "animal") for i in range(12)] + [
        Example(f"saw {i}", "tool") for i in range(12)
    ]
    labelled += [Example("odd", "animal"), Example("even", "tool")]
    trained = self_train(fit, labelled, ["cat cat", "saw saw"], SelfTrainingSettings(folds=4, shares=(1.0,)))
    first = trained.rounds[0]
    assert first.accuracy == pytest.approx(24 / 26, abs=1 / 26 + 1e-9)
    assert first.loss_nats is not None
    assert first.temperature != 1.0


def test_votes_that_disagree_take_nothing() -> None:
    """Each member forgets another example; of two labels, that is half of what there is to know."""
    several = SelfTrainingSettings(threshold=0.0, members=5, agreement=1.0, balance="none", shares=(1.0,))
    trained = self_train(
        fit,
        [*LABELLED, Example("hen", "animal"), Example("file", "tool")],
        ["hen", "cat axe", "dog cat"],
        several,
    )
    assert "cat axe" not in {label.text for label in trained.pseudo_labels}
    agreed = {label.text: label.agreement for label in trained.pseudo_labels}
    assert agreed["dog cat"] == 1.0


def test_passes_are_votes_too() -> None:
    class Wavering(Counting):
        def probabilities(self, texts: Sequence[str], passes: int = 1) -> np.ndarray:
            found = super().probabilities(texts, passes)
            found[1::2] = found[1::2, :, ::-1]
            return found

    chosen = SelfTrainingSettings(threshold=0.0, passes=4, balance="none")
    assert self_train(lambda e, s: Wavering(e, s), LABELLED, ["dog cow", "axe"], chosen).pseudo_labels == ()


@settings(max_examples=40)
@given(
    truth=st.lists(st.integers(0, 2), min_size=5, max_size=40),
    heat=st.floats(0.3, 4.0),
    seed=st.integers(0, 99),
)
def test_the_temperature_is_where_the_truth_is_likeliest(truth: list[int], heat: float, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(1, len(truth), 3)) * 2
    right = np.array(truth)

    def loss(temperature: float) -> float:
        scaled = scores[0] / temperature
        shares = np.exp(scaled) / np.exp(scaled).sum(1, keepdims=True)
        return float(-np.log(shares[np.arange(len(truth)), right]).mean())

    shares = np.exp(scores) / np.exp(scores).sum(2, keepdims=True)
    best = temperature_for(shares, right)
    assert best * 1.001 >= 1 / 20
    assert best <= 20.001
    assert loss(best) <= min(loss(t) for t in (best * 0.9, best * 1.1, heat) if 1 / 20 <= t <= 20) + 1e-6


def test_temperature_undoes_what_made_a_predictor_too_sure() -> None:
    """Scores that are three times as sharp as they should be are found to be so."""
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(4000, 2)) * 1.5
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    truth = (generator.random(4000) < shares[:, 1]).astype(np.int64)
    sharp = np.exp(3 * scores) / np.exp(3 * scores).sum(1, keepdims=True)
    assert temperature_for(sharp[None], truth) == pytest.approx(3.0, rel=0.1)


def test_voting_puts_classes_in_one_order() -> None:
    one, other = fit(LABELLED, 0), fit([Example("cat", "animal"), Example("red", "colour")], 0)
    voting = Voting([one, other], ("animal", "colour", "tool"))
    found = voting.probabilities(["cat", "red"])
    assert found.shape == (2, 2, 3)
    assert found[0, :, 1].tolist() == [0.0, 0.0]
    assert found[1, :, 2].tolist() == [0.0, 0.0]
    assert voting.predict(["red"]) == ["colour"]


def test_what_is_held_out_is_a_share_of_each_class_whatever_the_order() -> None:
    examples = [Example(f"{word} {i}", word) for word, n in (("a", 20), ("b", 10)) for i in range(n)]
    learned, held_out = hold_out(examples, 0.2, seed=1)
    assert sorted(learned + held_out) == sorted(examples)
    assert [sum(e.label == label for e in held_out) for label in "ab"] == [4, 2]
    assert sorted(hold_out(examples[::-1], 0.2, seed=1)[1]) == sorted(held_out)


def test_every_pseudo_label_can_be_looked_at(tmp_path: Path) -> None:
    from gristmill.evaluate.probe import read_examples

    trained = self_train(fit, LABELLED, CHAIN, SURE)
    write(trained, tmp_path / "labels")
    lines = [
        json.loads(line) for line in (tmp_path / "labels" / "pseudo_labels.jsonl").read_text().splitlines()
    ]
    assert [line["text"] for line in lines] == [label.text for label in trained.pseudo_labels]
    assert lines[0]["origin"] == {
        "kind": "pseudo-label", "index": 0, "round": trained.pseudo_labels[0].round,
        "confidence": round(trained.pseudo_labels[0].confidence, 4), "agreement": 1.0,
    }  # fmt: skip
    rounds = json.loads((tmp_path / "labels" / "rounds.json").read_text())
    assert (rounds["best"], len(rounds["rounds"])) == (trained.best, len(trained.rounds))
    read = read_examples(tmp_path / "labels" / "pseudo_labels.jsonl")
    assert [example.label for example in read] == [label.label for label in trained.pseudo_labels]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": ()}, "shares is"),
        ({"shares": (0.5, 1.5)}, "shares is"),
        ({"threshold": 1.1}, "threshold is 1.1"),
        ({"members": 0}, "at least 1"),
        ({"folds": 1}, "folds is 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SelfTrainingSettings(**changes)


def test_bad_examples_are_refused() -> None:
    with pytest.raises(InputError, match="1 class"):
        self_train(fit, LABELLED[:1], CHAIN, SURE)
    with pytest.raises(InputError, match='the class "plant"'):
        self_train(fit, LABELLED, CHAIN, SURE, validation=[Example("fern", "plant")])


def test_the_classifier_of_quality_is_a_fit() -> None:
    generator = np.random.default_rng(0)

    def texts(words: list[str], count: int) -> list[str]:
        common = ["this", "is", "what", "they", "said"]
        return [" ".join(generator.choice(words * 2 + common, 8)) for _ in range(count)]

    labelled = [Example(text, "animal") for text in texts(ANIMALS, 25)]
    labelled += [Example(text, "tool") for text in texts(TOOLS, 25)]
    trained = self_train(
        QualityFit(), labelled, texts(ANIMALS, 40) + texts(TOOLS, 40), SelfTrainingSettings(shares=(0.5,))
    )
    assert trained.predictor.predict(["cat dog cow", "saw axe drill"]) == ["animal", "tool"]
    assert trained.best == 1
    right = [label.label == ("animal" if label.index < 40 else "tool") for label in trained.pseudo_labels]
    assert len(right) > 20
    assert np.mean(right) > 0.9
    with pytest.raises(InputError, match="two classes"):
        QualityFit()([Example("a", "x"), Example("b", "y"), Example("c", "z")], 0)
