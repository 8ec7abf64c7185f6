"""The only room that imports transformers, peft and bitsandbytes: base, adapters, heads, generation, forward passes, optimiser."""

from lite.model import quiet

quiet.hush()  # here, because bitsandbytes speaks while it is imported, and every module of this room is imported after this line
