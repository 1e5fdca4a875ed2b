"""What a bundle turns prompts into numbers with: a tokenizer and an embedding table, which have to be of one model."""

from __future__ import annotations

from .check_video import embedding_width
from .embeddings import EmbeddingTable
from .encode import COMPONENT, GRAPH
from .errors import BundleError
from .manifest import MANIFEST
from .text import Tokenizer
from .video_bundle import VideoBundle

EMBEDDING_TENSOR, TOKENIZER = "embedding", "tokenizer/tokenizer.json"


def open_text(bundle: VideoBundle) -> tuple[Tokenizer, EmbeddingTable]:
    """Open both. Raises BundleError where one cannot be read, or does not fit the other or the text encoder."""
    folder, length = bundle.folder, bundle.model.text_length
    tokenizer = folder.read(TOKENIZER, lambda path: Tokenizer.open(path.parent, length, folder.shown(TOKENIZER)))
    table = folder.read(bundle.embedding, lambda path: EmbeddingTable.open(path, EMBEDDING_TENSOR))
    width = embedding_width(bundle.interface(COMPONENT, GRAPH), folder.shown(MANIFEST))
    if table.width != width:
        raise BundleError(
            f"the embedding table has rows of {table.width}, and {COMPONENT}/{GRAPH} takes {width}",
            where=folder.shown(bundle.embedding),
        )
    if tokenizer.vocabulary > table.vocabulary:
        raise BundleError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, and the embedding table {table.vocabulary} rows",
            where=folder.shown(bundle.embedding),
            hint="the tokenizer and the embedding table belong to different models",
        )
    return tokenizer, table
