import collections
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gristmill.corpus.perplexity as perplexity
from gristmill.corpus.features import packed
from gristmill.corpus.perplexity import (
    NgramConfig,
    NgramModel,
    bits_of,
    context_keys,
    logarithms,
    millibits_by,
    open_ngrams,
    thirds_of,
    train_ngrams,
    train_on,
)
from gristmill.errors import CorruptArtifact, InputError

ENGLISH = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of "
    "Darkness, it was the spring of hope, it was the winter of despair."
)
CHINESE = (
    "子曰：学而时习之，不亦说乎？有朋自远方来，不亦乐乎？人不知而不愠，不亦君子乎？"
    "有子曰：其为人也孝弟，而好犯上者，鲜矣；不好犯上，而好作乱者，未之有也。"
)
OTHER = "Είναι 😀 naïve"
TEXTS = [ENGLISH, CHINESE, OTHER, ""]
SHORT = st.text(alphabet="the ageof ,.学而时不亦乎é😀", max_size=40)


@pytest.fixture(scope="module")
def model():
    return train_on(TEXTS, characters=3, least=1)


def events(text, characters):
    """Yields (characters before, bytes of this one before, byte) of each byte."""
    for i, character in enumerate(text):
        before = ("",) * characters + tuple(text[:i])
        for j, byte in enumerate(character.encode()):
            yield before[len(before) - characters :], character.encode()[:j], byte


def slow_discounts(level):
    n = collections.Counter(level.values())
    if not all(n[k] for k in (1, 2, 3, 4)):
        return [0.5, 1.0, 1.5]
    y = n[1] / (n[1] + 2 * n[2])
    found = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
    return found if all(0 < d < k for k, d in zip((1, 2, 3), found, strict=True)) else [0.5, 1.0, 1.5]


def slow_probabilities(texts, characters, text):
    """The probability of each byte of a text under interpolated modified Kneser-Ney, with dictionaries and floats."""
    counts = [collections.Counter() for _ in range(characters + 1)]
    counts[characters].update(event for other in texts for event in events(other, characters))
    for length in range(characters, 0, -1):
        counts[length - 1].update((before[1:], begun, byte) for before, begun, byte in counts[length])
    sums = [collections.Counter() for _ in counts]
    taken = [collections.Counter() for _ in counts]
    for length, level in enumerate(counts):
        discounts = slow_discounts(level)
        for (before, begun, _), count in level.items():
            sums[length][before, begun] += count
            taken[length][before, begun] += discounts[min(count, 3) - 1]
    for before, begun, byte in events(text, characters):
        p = 1 / 256
        for length, level in enumerate(counts):
            context = (before[characters - length :], begun)
            if context not in sums[length]:
                break
            count = level[(*context, byte)]
            own = (count - slow_discounts(level)[min(count, 3) - 1]) / sums[length][context] if count else 0
            rest = taken[length][context] / sums[length][context]
            p = own * (1 - max(rest, 2**-10)) / (1 - rest) + max(rest, 2**-10) * p
        yield p


@pytest.mark.parametrize("characters", [0, 1, 3])
@pytest.mark.parametrize("text", [*TEXTS, "it was the winter 不亦 of 😀 hope, zebra"])
def test_probabilities_are_those_of_modified_kneser_ney(characters, text):
    model = train_on(TEXTS, characters=characters, least=1)
    data, offsets = packed([text])
    data = data[: offsets[-1]]
    found = model.probabilities(context_keys(data, offsets, characters), data) / 2**44
    expected = np.array(list(slow_probabilities(TEXTS, characters, text)))
    assert found == pytest.approx(expected, rel=2e-3, abs=2e-6)  # shares are of 2^-24, rests of 2^-20


@given(text=SHORT, place=st.integers(0, 200), least=st.sampled_from([1, 2]))
@settings(max_examples=30)
def test_probabilities_of_all_bytes_sum_to_one(text, place, least):
    model = train_on([*TEXTS, "it was 不亦"], characters=4, least=least)
    data, offsets = packed([text + "e"])
    data = data[: offsets[-1]]
    place %= len(data)
    contexts = [np.full(256, keys[place]) for keys in context_keys(data, offsets, 4)]
    found = model.probabilities(contexts, np.arange(256, dtype=np.uint8))
    total = int(found.sum(dtype=np.uint64))
    assert (1 << 44) - 256 * 6 <= total <= (1 << 44) + 256  # what rounding down loses, and the least of 2^-44
    assert (found > 0).all()


@given(texts=st.lists(SHORT, max_size=4))
@settings(max_examples=50)
def test_c_and_python_give_the_same_bits(model, texts):
    assert perplexity.library(perplexity.SOURCE, include=perplexity.TEXT_SOURCE) is not None, "no C compiler"
    compiled = model.bits_of_buffer(*packed(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perplexity, "library", lambda *_, **__: None)
        assert model.bits_of_buffer(*packed(texts)).tolist() == compiled.tolist()


def test_of_a_text_that_is_too_long_the_beginning_counts_in_both(model, monkeypatch):
    text = "时" * ((8 << 20) // 3 + 5)
    beginning = text[: (8 << 20) // 3]
    expected = model.millibits([beginning])
    assert model.millibits([text]) == expected
    monkeypatch.setattr(perplexity, "EXAMINED_BYTES", 100)
    monkeypatch.setattr(perplexity, "library", lambda *_, **__: None)
    data, offsets = packed([text[:40]])
    assert model.bits_of_buffer(data, offsets) == model.bits_of_buffer(*packed([text[:33]]))


def test_bits_are_logarithms():
    probabilities = np.array([1, 2, 3, 1000, (1 << 36) + 12345, (1 << 44) - 1, 1 << 44], dtype=np.uint64)
    expected = [44 - math.log2(int(p)) for p in probabilities]
    assert bits_of(probabilities) / 2**20 == pytest.approx(expected, abs=4e-6)
    assert logarithms()[[0, 512, 1024]].tolist() == [0, int(math.log2(1.5) * 2**20), 1 << 20]


def test_like_text_takes_fewer_bits_than_other_text(model):
    like, reordered, other, nothing = model.millibits(
        ["it was the spring of belief", "belief the of spring was it", "Zwölf Boxkämpfer jagen Viktor", ""]
    )
    assert nothing == 0
    assert 0 < like < reordered < other < 44_000


def test_millibits_are_bits_by_bytes(model):
    bits = int(model.bits_of_buffer(*packed([CHINESE]))[0])
    assert model.millibits([CHINESE])[0] == bits * 1000 // (len(CHINESE.encode()) << 20)


def test_rare_long_contexts_are_left_out_and_the_rest_stays_a_model():
    whole, pruned = (train_on(TEXTS, characters=5, least=least) for least in (1, 3))
    assert len(pruned.arrays["keys"]) < len(whole.arrays["keys"])
    assert train_on(TEXTS, characters=2, least=3).arrays["keys"].tolist() == (
        train_on(TEXTS, characters=2, least=1).arrays["keys"].tolist()
    )


def test_thirds_are_of_each_language():
    millibits = np.array([10, 20, 30, 40, 50, 60, 900, 800, 700, 5])
    languages = ["en"] * 6 + ["zh"] * 3 + ["other"]
    assert thirds_of(millibits, languages).tolist() == [0, 0, 1, 1, 2, 2, 2, 1, 0, 0]
    assert thirds_of(np.array([], dtype=np.int32), []).tolist() == []


def test_any_model_can_give_the_figure():
    assert millibits_by(lambda texts: [len(text) / 8 for text in texts], ["a", "abcd"]).tolist() == [125, 500]
    for wrong in ([1.0], [1.0, float("nan")], [1.0, -2.0]):
        with pytest.raises(InputError):
            millibits_by(lambda texts, wrong=wrong: wrong, ["a", "b"])


def test_a_model_is_read_as_it_was_written_or_not_at_all(model, tmp_path):
    model.write(tmp_path)
    assert NgramModel.read(tmp_path).millibits(TEXTS).tolist() == model.millibits(TEXTS).tolist()
    for name, change in (
        ("rests", lambda a: a + 1), ("keys", lambda a: a[::-1]), ("entries", lambda a: a[:-1]),
        ("counts", lambda a: a.astype(np.int32)),
    ):  # fmt: skip
        changed = {
            key: np.ascontiguousarray(change(a) if key == name else a) for key, a in model.arrays.items()
        }
        NgramModel(model.arrays, 3).write(tmp_path)
        from safetensors.numpy import save_file

        save_file(changed, tmp_path / perplexity.ARRAYS)
        with pytest.raises(CorruptArtifact):
            NgramModel.read(tmp_path)
    (tmp_path / perplexity.ARRAYS).write_bytes(b"\x80\x04N.")
    with pytest.raises(CorruptArtifact):
        NgramModel.read(tmp_path)


def test_a_model_is_trained_from_files_once(tmp_path):
    (tmp_path / "texts").mkdir()
    for i, sentence in enumerate(ENGLISH.split(", ")):
        (tmp_path / "texts" / f"{i}.txt").write_text(sentence)
    config = NgramConfig(sources=(str(tmp_path / "texts"),), characters=3, training_bytes=200)
    made = train_ngrams(config, tmp_path / "ngrams")
    assert made.manifest.metrics["training"]["text_bytes"] <= 200
    assert made.manifest.metrics["held_out"]["documents"] >= 1
    assert open_ngrams(tmp_path / "ngrams").millibits([ENGLISH])[0] > 0
    assert train_ngrams(config, tmp_path / "ngrams").manifest.created_at == made.manifest.created_at
    with pytest.raises(InputError):
        NgramConfig(sources=("x",), characters=99)
