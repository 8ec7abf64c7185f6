"""How an adapter lies on the disk: a plain PEFT folder. Imports nothing, for those who only look at it."""

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of the Llama, Mistral, Qwen and OLMo families, by suffix: short in the saved configuration, and portable."""
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
