"""Prompts counted as nodes count them: the chat template rendered, the text split by the model's own tokenizer."""
