"""Whether a checkpoint's tokenizer fits its text encoder."""

from __future__ import annotations

from wanc.errors import CheckpointError
from wanc.models.wan.checkpoint import Checkpoint, embedding

LEAST_TEXT = 2
"""In tokens: a word and the end mark."""


def check_tokenizer(checkpoint: Checkpoint) -> None:
    """A bundle takes it as it is: what does not fit the text encoder would be found where the bundle runs.

    Raises CheckpointError and BundleError.
    """
    from wanc.runtime.text import Tokenizer

    if checkpoint.tokenizer is None:
        return
    path = checkpoint.path(checkpoint.tokenizer)
    tokenizer = Tokenizer.open(path.parent, checkpoint.text_length)
    rows, _ = embedding(checkpoint.components["text_encoder"]).shape
    if tokenizer.vocabulary > rows:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, and the text encoder's embedding {rows} rows",
            where=str(path),
            hint="they belong to different models",
        )
    if tokenizer.end_mark != checkpoint.end_mark:
        raise CheckpointError(
            f"the tokenizer ends a text with the token {tokenizer.end_mark}, and the text encoder's eos_token_id is "
            f"{checkpoint.end_mark}",
            where=str(path),
            hint="its post_processor has to add </s>, as transformers' T5TokenizerFast saves it",
        )
    if checkpoint.text_length < LEAST_TEXT:
        raise CheckpointError(
            f"a text may have {checkpoint.text_length} token, which is the end mark: no prompt would be heard",
            where=str(path.with_name("tokenizer_config.json")),
            hint="its model_max_length is 512 for Wan",
        )
