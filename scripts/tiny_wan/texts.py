"""The text states of tiny-wan's own encoder, which stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import UMT5EncoderModel

from . import configuration
from .flow_phase import tokenise


@dataclass(frozen=True)
class Texts:
    """Encodes prompts as the pipeline does."""

    encoder: UMT5EncoderModel
    tokenizer: Tokenizer

    @classmethod
    def load(cls, folder: Path) -> Texts:
        encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        return cls(encoder.eval(), Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json")))

    @torch.no_grad()
    def states(self, prompts: list[str]) -> torch.Tensor:
        """Float32 [batch, 64, width], zero where there is no token."""
        identifiers, mask = tokenise(prompts, self.tokenizer)
        states = self.encoder(identifiers, mask).last_hidden_state * mask[..., None]
        return torch.nn.functional.pad(states, (0, 0, 0, configuration.MAX_TEXT_TOKENS - states.shape[1]))
