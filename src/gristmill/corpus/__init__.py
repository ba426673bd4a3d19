"""Text in, documents out: reads files of many kinds, cleans them, drops what is twice, and splits off validation."""

from gristmill.corpus.build import CorpusConfig, build
from gristmill.corpus.store import Corpus, Document

__all__ = ["Corpus", "CorpusConfig", "Document", "build"]
