"""Builds the tiny thinking model. A script for the interpreter of vLLM's virtual environment, never imported here.

    python tiny_model_build.py GGUF TEMPLATE OUT

GGUF is SmolLM2-135M-Instruct, TEMPLATE the chat template, OUT an empty directory. Theory: the model has no word for
thinking, so it gets two, and a newline's meaning for both. Read, `<think>` is a newline: the model goes on after it in
whole sentences. Written, `</think>` is 0.97 of a newline and so nearly as likely as one: thinking ends by itself now
and then, as a real model's does. Written, `<think>` and the tool-call markers are the mean of all words: never chosen
freely, there when a grammar asks for them. Reading and writing differ, so the two embeddings can no longer be one.
"""

import sys
from pathlib import Path

import torch  # type: ignore[import-not-found, unused-ignore]
from transformers import (  # type: ignore[import-not-found, unused-ignore]
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

# The factor on the newline's row where a marker is read and where it is written; None is the mean of all rows.
READ = {"<think>": 1.0, "</think>": 0.97, "<tool_call>": None, "</tool_call>": None}
WRITTEN = {"<think>": None, "</think>": 0.97, "<tool_call>": None, "</tool_call>": None}


def build(gguf: Path, template: Path, out: Path) -> None:
    """Write config, weights (bfloat16, about 330 MB), tokenizer and chat template into `out`."""
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    source = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert len(newline) == 1, newline

    # A model that was loaded from GGUF refuses to be saved: its weights move into one that was not.
    config = {k: v for k, v in source.config.to_dict().items() if k != "quantization_config"}
    config["tie_word_embeddings"] = False
    model = LlamaForCausalLM(LlamaConfig.from_dict(config)).to(torch.float32)
    model.load_state_dict({**source.state_dict(), "lm_head.weight": source.get_input_embeddings().weight})

    tokenizer.add_tokens([AddedToken(text, normalized=False, special=True) for text in READ])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for embeddings, factors in ((model.get_input_embeddings(), READ), (model.get_output_embeddings(), WRITTEN)):
        rows = embeddings.weight.data
        mean = rows[: len(tokenizer) - len(factors)].mean(dim=0)
        for text, factor in factors.items():
            rows[tokenizer.convert_tokens_to_ids(text)] = mean if factor is None else rows[newline[0]] * factor

    tokenizer.chat_template = template.read_text(encoding="utf-8")
    tokenizer.model_max_length = config["max_position_embeddings"]
    model.generation_config = GenerationConfig(
        bos_token_id=1, eos_token_id=2, pad_token_id=2, do_sample=True, temperature=0.2, top_p=0.9
    )
    # The download's precision is 4 bits: bfloat16 halves the file, and a node may still compute in float32.
    model.to(torch.bfloat16).save_pretrained(str(out), safe_serialization=True)
    tokenizer.save_pretrained(str(out))


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
