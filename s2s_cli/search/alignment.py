"""From the attention of an output to alignments: pairs of a source and a target position, between pieces or between words.

A word is what whitespace separates, tags at the start of a line included. Attention is a hint of what a piece was made
from, no more: its layer and heads are the model's choice (see `Seq2Seq.step`).
"""

import numpy as np
from torch import Tensor

from s2s_cli.data.vocab import Vocab

Link = tuple[int, int]  # source and target position, from 0
_UNKNOWN = " \u2047 "  # what a vocabulary writes for a piece that it does not know


def piece_links(attention: Tensor) -> list[Link]:
    """attention [T+1, S+1], the last row and column being those of EOS -> the source piece that each target piece looks at
    most.
    """
    weights = attention[:-1, :-1]
    return [(int(src), tgt) for tgt, src in enumerate(weights.argmax(dim=1).tolist())] if weights.numel() else []


def word_links(attention: Tensor, src_words: list[int], tgt_words: list[int]) -> list[Link]:
    """attention [T+1, S+1] and the word of each piece -> the source word that each target word looks at most.

    Weights are summed over the pieces of both words; those on the source's EOS count for none.
    """
    weights = attention[:-1, :-1].float().cpu().numpy()
    if not weights.size or -1 in (src_words[0], tgt_words[0]):  # one side is of spaces
        return []
    sums = np.zeros((max(tgt_words) + 1, max(src_words) + 1))
    np.add.at(sums, (np.array(tgt_words)[:, None], np.array(src_words)[None, :]), weights)
    return [(int(sums[word].argmax()), word) for word in sorted(set(tgt_words))]


def words_of(vocab: Vocab, ids: list[int], text: str | None = None) -> list[int]:
    """For each piece, the number of the word that it stands in, from 0: of the decoded text, or of `text`, which was encoded;
    -1 where there is no word. The text makes a difference where pieces are unknown: decoded, they are set apart from their
    neighbours.
    """
    decoded = [vocab.decode(ids[: end + 1]) for end in range(len(ids))]
    if text is not None and ids and len(decoded[-1].split()) != len(text.split()):
        decoded = [part.replace(_UNKNOWN, _UNKNOWN.strip()) for part in decoded]
    last = len((decoded[-1] if text is None else text).split()) - 1 if ids else 0
    spaces = [not vocab.decode([i]).strip() for i in ids]  # they belong to the word behind them, if there is one
    return [min(max(0, len(part.split()) - (not space)), last) for part, space in zip(decoded, spaces, strict=True)]


def pharaoh(links: list[Link]) -> str:
    """`0-0 1-2 …`: source and target position of each link."""
    return " ".join(f"{src}-{tgt}" for src, tgt in links)
