"""Rules and personal data in a corpus: what is dropped and replaced, and that the texts themselves stay."""

import json

import pytest

from gristmill.corpus import Corpus, CorpusConfig, build
from gristmill.corpus.contamination import ContaminationSettings, EvaluationSet
from gristmill.corpus.decontaminate import FOUND
from gristmill.corpus.rules import RuleSettings
from gristmill.corpus.scrub import ScrubSettings
from gristmill.errors import InputError

TEXTS = [
    "Write to jane.doe@corp-mail.com or call +1 415 555 2671 about it.",
    "请联系张伟，电话 13812345678，邮箱 zhang.wei@mail.com.cn。",
    "Write to jane.doe@corp-mail.com again.",
    "There is nothing to hide in here.",
]


@pytest.fixture
def make(tmp_path):
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")

    def make(out="corpus", **settings):
        return Corpus(
            build(CorpusConfig(sources=(str(source),), valid_fraction=0.0, **settings), tmp_path / out)
        )

    return make


def texts(corpus):
    return [document.text for document in corpus.documents()]


def test_personal_data_is_masked_when_texts_are_read_out_and_counted(make):
    corpus = make(scrub=ScrubSettings(kinds=("email", "phone")))
    assert texts(corpus) == [
        "Write to [EMAIL] or call [PHONE] about it.",
        "请联系张伟，电话 [PHONE]，邮箱 [EMAIL]。",
        "Write to [EMAIL] again.",
        TEXTS[3],
    ]
    assert corpus.metrics["edits"] == {"email": 3, "phone": 2}
    assert corpus.metrics["characters"] == sum(map(len, texts(corpus)))
    assert corpus.metrics["text_bytes"] == sum(len(text.encode()) for text in texts(corpus))
    assert texts(make("plain")) == TEXTS  # what was read is as it was


def test_the_same_value_has_the_same_surrogate_and_another_under_another_key(make, tmp_path):
    found = []
    for number in range(2):
        key = tmp_path / f"{number}.key"
        key.write_bytes(bytes([number]) * 32)
        corpus = make(
            f"corpus-{number}", scrub=ScrubSettings(kinds=("email",), method="surrogate", key_file=str(key))
        )
        first, _, third, _ = texts(corpus)
        value = first.split()[2]
        assert value in third
        assert "jane.doe" not in first + third
        found.append(value)
    assert found[0] != found[1]


def test_names_are_those_of_a_list(make, tmp_path):
    (tmp_path / "names.txt").write_text("张伟\n", encoding="utf-8")
    corpus = make(scrub=ScrubSettings(kinds=("name",), names=str(tmp_path / "names.txt")))
    assert texts(corpus)[1].startswith("请联系[NAME]，")


def test_rules_drop_with_their_names(make):
    corpus = make(rules=RuleSettings(languages=("en",)))
    assert texts(corpus) == [TEXTS[0], TEXTS[2], TEXTS[3]]
    assert corpus.metrics["dropped"]["language"]["documents"] == 1
    with pytest.raises(
        InputError, match=r"1 gopher_quality\.chinese_minimum_characters, .*2 gopher_quality\.minimum_words"
    ):
        make(
            "short",
            rules=RuleSettings(sets=("gopher_quality",), change={"gopher_quality": {"minimum_words": 8}}),
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ("emial",)}, 'there is no kind "emial"'),
        ({"kinds": ("name",)}, '"name" and the file `names` go together'),
        ({"kinds": ("email",), "method": "surrogate"}, "surrogates need a key"),
        ({"kinds": ("email",), "method": "surrogate", "key_file": "nowhere"}, "nowhere can't be read"),
    ],
)
def test_what_is_missing_is_missed_before_work_starts(make, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        make(scrub=ScrubSettings(**settings))
    assert not (tmp_path / "corpus").exists()


LEAK = "The old lighthouse keeper counted seven ships at dawn before the fog swallowed the harbour again."


@pytest.mark.parametrize("action", ["report", "drop", "cut"])
def test_what_an_evaluation_set_has_is_found_and_dealt_with(tmp_path, action):
    (tmp_path / "eval.jsonl").write_text(json.dumps({"question": LEAK}) + "\n")
    leaking = f"{'Some words of introduction. ' * 20}{LEAK}{' Some more words at the end.' * 20}"
    source = tmp_path / "texts.jsonl"
    source.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, leaking]), encoding="utf-8"
    )
    settings = ContaminationSettings(
        sets=(EvaluationSet(files=(str(tmp_path / "eval.jsonl"),), columns=("question",)),),
        action=action,
        margin=0,
    )
    corpus = Corpus(
        build(
            CorpusConfig(sources=(str(source),), valid_fraction=0.0, contamination=settings),
            tmp_path / "corpus",
        )
    )
    found = [json.loads(line) for line in (corpus.artifact.path / FOUND).read_text().splitlines()]
    assert [(row["item"], row["cover"]) for row in found] == [(0, 1.0)]
    assert corpus.stored(found[0]["key"]).text == leaking
    assert corpus.metrics["contaminated_documents"] == 1
    left = texts(corpus)[len(TEXTS) :]
    # the period is no word, so it stays
    expected = {"report": [leaking], "drop": [], "cut": [leaking.replace(LEAK[:-1], "")]}[action]
    assert left == expected
