"""The embedded world's public face: draw dialogues of a split, grade replies."""

from lite.micro.oracle import CRITERIA, Grade, grade
from lite.micro.splits import SPLITS, Split, draw_dialogue, split_of

__all__ = ["CRITERIA", "SPLITS", "Grade", "Split", "draw_dialogue", "grade", "split_of"]
