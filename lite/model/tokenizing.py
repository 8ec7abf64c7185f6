"""The tokenizer of a folder, for those who need no weights."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lite.model.encoding import encode


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it puts its begin-of-text token before every text."""
    return tokenizer.bos_token_id is not None and encode(tokenizer, "x")[0] == tokenizer.bos_token_id
