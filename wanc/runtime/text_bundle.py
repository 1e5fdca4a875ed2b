"""What a bundle turns prompts into numbers with: a tokenizer and an embedding table, which have to be of one model."""

from __future__ import annotations

from .check_video import embedding_width
from .embeddings import EmbeddingTable
from .encode import COMPONENT, GRAPH
from .errors import BundleError
from .manifest import MANIFEST
from .text import Tokenizer
from .video_bundle import VideoBundle

EMBEDDING_TENSOR = "embedding"


def open_text(bundle: VideoBundle) -> tuple[Tokenizer, EmbeddingTable]:
    """Open both. Raises BundleError where one cannot be read, or does not fit the other or the text encoder."""
    tokenizer = Tokenizer.open(bundle.root / "tokenizer", bundle.model.text_length)
    table = EmbeddingTable.open(bundle.embedding, EMBEDDING_TENSOR)
    width = embedding_width(bundle.interface(COMPONENT, GRAPH), str(bundle.root / MANIFEST))
    if table.width != width:
        raise BundleError(
            f"the embedding table has rows of {table.width}, and {COMPONENT}/{GRAPH} takes {width}",
            where=str(bundle.embedding),
        )
    if tokenizer.vocabulary > table.vocabulary:
        raise BundleError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, and the embedding table {table.vocabulary} rows",
            where=str(bundle.embedding),
            hint="the tokenizer and the embedding table belong to different models",
        )
    return tokenizer, table
