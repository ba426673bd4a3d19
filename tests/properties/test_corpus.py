"""What holds for any texts whatever: nothing is lost, nothing is doubled, everything can be found again."""

import json
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.corpus import Corpus, CorpusConfig, Document, build
from gristmill.corpus.normalise import normalise

WORDS = st.text(st.sampled_from("ab中é \n\r\t,\"'%\u3000\ufeff\x07e\u0301"), min_size=1, max_size=30)
TEXTS = st.lists(WORDS, min_size=1, max_size=12)


def built(folder: Path, sources: list[Path], **options: object) -> Corpus | None:
    """The corpus of some files, or None where nothing is left of them."""
    config = CorpusConfig(sources=tuple(map(str, sources)), **options)  # type: ignore[arg-type]
    return Corpus(build(config, folder / "corpus"))


@settings(max_examples=30, deadline=None)
@given(TEXTS)
def test_the_byte_range_of_a_file_holds_its_text(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, text in enumerate(["certain text", *texts]):
            (folder / f"{number:02d}.txt").write_bytes(text.encode())
        corpus = built(folder, [folder], encoding="utf-8", valid_fraction=0.0)
        assert corpus is not None
        for document in corpus.documents():
            piece = Path(document.source).read_bytes()[document.start : document.end]
            assert normalise(piece.decode()).text == document.text


@settings(max_examples=30, deadline=None)
@given(TEXTS, st.sampled_from([0.05, 0.3, 0.9]))
@example(["a", "\u3000\u3000a", "\ta"], 0.05)  # white space around it makes no other text
def test_the_split_is_disjoint_and_complete_and_each_text_is_there_once(
    texts: list[str], fraction: float
) -> None:
    rows = ["a certain text", *texts, *texts]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in rows))
        corpus = built(folder, [folder / "a.jsonl"], valid_fraction=fraction)
        assert corpus is not None
        train, valid = (list(corpus.documents(split)) for split in ("train", "valid"))
        both = sorted(corpus.documents(), key=place)
        assert sorted(train + valid, key=place) == both
        assert not {document.id for document in train} & {document.id for document in valid}
        wanted = {normalise(text).text.strip() for text in rows} - {""}
        if len({place(document) for document in both}) == len(both):  # no document was cut
            assert sorted(document.text.strip() for document in both) == sorted(wanted)
            assert not valid or train
        counted = sum(entry["documents"] for entry in corpus.metrics["dropped"].values())
        assert corpus.metrics["read"]["documents"] == len(rows) == len(wanted) + counted


@settings(max_examples=15, deadline=None)
@given(TEXTS, st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_files_or_their_order(texts: list[str], random: object) -> None:
    rows = ["a certain text", "another", *texts]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{number:02d}.jsonl" for number in range(len(rows))]
        for path, text in zip(paths, rows, strict=True):
            path.write_text(json.dumps({"text": text}))
        (folder / "all.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in reversed(rows)))
        shuffled = paths.copy()
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        ids = []
        for number, sources in enumerate((paths, shuffled, [folder / "all.jsonl"])):
            corpus = Corpus(
                build(
                    CorpusConfig(sources=tuple(map(str, sources)), valid_fraction=0.0), folder / str(number)
                )
            )
            ids.append(sorted(document.id for document in corpus.documents()))
        assert ids[0] == ids[1] == ids[2]


def place(document: Document) -> tuple[str, int]:
    return document.source, document.start
