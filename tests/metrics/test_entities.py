"""The same entities, and the same table, as seqeval."""

import pytest
import seqeval.metrics
import seqeval.scheme
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import classification_report

from gristmill.metrics.entities import Scheme, entities, entity_report, strict_entities, tag_report

PREFIXES = {"IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}
SCHEMES = {name: getattr(seqeval.scheme, name) for name in PREFIXES}


def tags_of(scheme: str) -> st.SearchStrategy[str]:
    tag = st.tuples(st.sampled_from(PREFIXES[scheme]), st.sampled_from(["PER", "LOC-B", "人名"])).map(
        "-".join
    )
    return st.one_of(st.just("O"), tag)


@settings(max_examples=200, deadline=None)
@given(st.lists(tags_of("IOBES"), max_size=12))
def test_any_tags_are_read_as_conlleval_reads_them(tags: list[str]) -> None:
    assert [(type_, start, end - 1) for type_, start, end in entities(tags)] == get_entities(tags)


@pytest.mark.parametrize("scheme", list(PREFIXES))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_well_formed_entities_are_those_of_seqeval(scheme: Scheme, data: st.DataObject) -> None:
    tags = data.draw(st.lists(tags_of(scheme), max_size=12))
    wanted = seqeval.scheme.Tokens(tags, SCHEMES[scheme]).entities
    assert [tuple(each) for each in strict_entities(tags, scheme)] == [
        (each.tag, each.start, each.end) for each in wanted
    ]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_tables_are_those_of_seqeval_and_of_scikit_learn(data: st.DataObject) -> None:
    true, predicted = [["B-PER", "I-PER", "O"]], [["B-PER", "I-PER", "O"]]
    for _ in range(data.draw(st.integers(0, 5))):
        length = data.draw(st.integers(1, 8))
        for each in (true, predicted):
            each.append(data.draw(st.lists(tags_of("IOB2"), min_size=length, max_size=length)))
    wanted = seqeval.metrics.classification_report(true, predicted, digits=3, zero_division=0)
    assert entity_report(true, predicted).layout(3) == wanted
    strict = seqeval.metrics.classification_report(
        true, predicted, digits=3, zero_division=0, mode="strict", scheme=seqeval.scheme.IOB2
    )
    assert entity_report(true, predicted, "IOB2").layout(3) == strict
    flat = [[tag for tags in each for tag in tags] for each in (true, predicted)]
    assert tag_report(true, predicted).layout(3) == classification_report(*flat, digits=3, zero_division=0.0)


def test_a_tag_of_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match='the tag "S-PER" is none of IOB2: B, I, O'):
        strict_entities(["S-PER"], "IOB2")


def test_sentences_have_as_many_tags_as_were_predicted() -> None:
    with pytest.raises(ValueError, match="sentence 1 has 2 tags, and 1 were predicted"):
        entity_report([["O"], ["O", "O"]], [["O"], ["O"]])
