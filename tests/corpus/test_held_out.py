"""Corpora that share their validation text, and shares of a text."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.corpus import Corpus, CorpusConfig, build
from gristmill.corpus.deduplicate import DedupSettings
from gristmill.corpus.held_out import held_out_by, share_of
from gristmill.corpus.rules import RuleSettings
from gristmill.errors import InputError

BIBLE = Path(__file__).parents[2] / "recipes" / "texts" / "king-james.txt"


def passages(count: int) -> list[str]:
    """Passages of the King James Bible, some 600 characters each."""
    text = BIBLE.read_text(encoding="utf-8")[: 700 * count]
    words = text.split()
    return [" ".join(words[i : i + 110]) for i in range(0, 110 * count, 110)]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    texts = passages(120)
    assert len(texts) == 120
    file = tmp_path / "texts.jsonl"
    # one in ten comes again with its last word changed
    again = [text.rsplit(" ", 1)[0] + " indeed" for text in texts[::10]]
    file.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts + again), encoding="utf-8")
    return file


def config(sources: Path, **changes: object) -> CorpusConfig:
    return CorpusConfig(sources=(str(sources),), valid_fraction=0.2, **changes)  # type: ignore[arg-type]


def test_the_validation_text_is_the_others(sources: Path, tmp_path: Path) -> None:
    first = Corpus(build(config(sources), tmp_path / "first"))
    second = Corpus(
        build(
            config(sources, held_out=str(tmp_path / "first"), rules=RuleSettings(sets=("gopher_quality",))),
            tmp_path / "second",
        )
    )
    assert list(second.texts("valid")) == list(first.texts("valid"))
    assert [d.text for d in second.documents("valid")] == list(first.texts("valid"))
    assert [text for _, text, _, _ in second.items("valid")] == list(first.texts("valid"))
    assert not set(second.texts("train")) & set(first.texts("valid"))
    assert set(second.texts("train")) < set(first.texts("train"))
    assert second.metrics["splits"]["valid"] == first.metrics["splits"]["valid"]
    assert [group for _, _, _, group in second.items()] == [second.groups.index("en")] * len(
        list(second.texts())
    )


def test_what_is_a_near_duplicate_of_held_out_text_is_left_out_even_without_deduplication(
    sources: Path, tmp_path: Path
) -> None:
    first = Corpus(build(config(sources), tmp_path / "first"))
    held = held_out_by(first)
    decided = first.decided(("key", "hash"))
    twins = {
        int(h)
        for h, by in zip(decided["hash"], decided["by"], strict=True)
        if by >= 0 and int(decided["hash"][list(decided["key"]).index(by)]) in set(held.hashes.tolist())
    }
    assert twins, "the fixture has near duplicates of validation text"
    assert twins <= set(held.hashes.tolist())
    second = build(
        config(sources, held_out=str(tmp_path / "first"), dedup=DedupSettings(exact=False, near=False)),
        tmp_path / "second",
    )
    left = Corpus(second).decided(("hash",))
    kept = set(left["hash"][left["reason"] == ""].tolist())
    assert not kept & set(held.hashes.tolist())
    assert len(kept) > len(list(first.texts("train")))


def test_what_another_source_has_of_held_out_text_is_left_out(sources: Path, tmp_path: Path) -> None:
    first = Corpus(build(config(sources), tmp_path / "first"))
    held = list(first.texts("valid"))
    more = tmp_path / "more.jsonl"
    near = [text.replace(" the ", " ye ", 1) for text in held]
    fresh = passages(140)[130:]
    more.write_text("".join(json.dumps({"text": t}) + "\n" for t in near + fresh), encoding="utf-8")
    for dedup in (DedupSettings(), DedupSettings(near=False)):
        second = Corpus(
            build(
                CorpusConfig(
                    sources=(str(sources), str(more)), held_out=str(tmp_path / "first"), dedup=dedup
                ),
                tmp_path / f"second {dedup.near}",
            )
        )
        train = set(second.texts("train"))
        assert not train & set(near)
        assert train >= set(fresh)
        assert list(second.texts("valid")) == held


def test_the_corpus_moves_with_its_reference(sources: Path, tmp_path: Path) -> None:
    build(config(sources), tmp_path / "a" / "first")
    build(config(sources, held_out=str(tmp_path / "a" / "first")), tmp_path / "a" / "second")
    (tmp_path / "a").rename(tmp_path / "b")
    assert list(Corpus(tmp_path / "b" / "second").texts("valid"))
    (tmp_path / "b" / "first").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="gone"):
        Corpus(tmp_path / "b" / "second")


def test_a_single_document_is_cut_at_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("\n\n".join(passages(60)), encoding="utf-8")
    first = Corpus(build(config(tmp_path / "one.txt"), tmp_path / "first"))
    second = Corpus(
        build(config(tmp_path / "one.txt", held_out=str(tmp_path / "first")), tmp_path / "second")
    )
    for split in ("train", "valid"):
        assert list(second.texts(split)) == list(first.texts(split))
    with pytest.raises(InputError, match="can't be divided"):
        build(config(tmp_path / "one.txt", fraction=0.5), tmp_path / "third")


def test_a_share_is_a_share_and_smaller_ones_are_within_larger_ones(sources: Path, tmp_path: Path) -> None:
    build(config(sources), tmp_path / "first")
    before: set[str] = set()
    for share in (0.25, 0.5, 1.0):
        corpus = Corpus(
            build(
                config(
                    sources, held_out=str(tmp_path / "first"), fraction=share, dedup=DedupSettings(near=False)
                ),
                tmp_path / f"{share}",
            )
        )
        now = set(corpus.texts("train"))
        assert before < now
        before = now
    # all but what deduplication drops
    assert before > set(Corpus(tmp_path / "first").texts("train"))


def test_bad_references(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        build(config(sources, held_out=str(tmp_path / "nowhere")), tmp_path / "x")
    build(config(sources), tmp_path / "first")
    with pytest.raises(InputError, match="another way"):
        build(config(sources, held_out=str(tmp_path / "first"), encoding="utf-8"), tmp_path / "x")
    build(config(sources, held_out=str(tmp_path / "first")), tmp_path / "second")
    with pytest.raises(InputError, match="validation text of another"):
        build(config(sources, held_out=str(tmp_path / "second")), tmp_path / "x")


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 1000)),
        min_size=40,
        max_size=300,
        unique_by=lambda d: d[0],
    ),
    st.floats(0.2, 1.0),
)
def test_a_share_of_the_bytes(documents: list[tuple[int, int]], share: float) -> None:
    hashes, sizes = (np.array(column, dtype=np.uint64) for column in zip(*documents, strict=True))
    try:
        chosen = share_of(hashes, sizes, share)
    except InputError:
        assert sizes.max() > 0.2 * share * sizes.sum()  # only a document that is too long to be left whole
        return
    reached = sizes[chosen].sum()
    assert abs(int(reached) - share * int(sizes.sum())) <= sizes.max()
    # the order of the documents does not matter
    assert (share_of(hashes[::-1], sizes[::-1], share)[::-1] == chosen).all()


def test_equal_texts_are_in_or_out_together() -> None:
    hashes = np.repeat(np.arange(100, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15), 2)
    chosen = share_of(hashes, np.ones(200, dtype=np.int64), 0.5)
    assert (chosen[::2] == chosen[1::2]).all()
    assert chosen.sum() == 100
