"""Builds the tiny thinking model. A script for the interpreter of vLLM's virtual environment, never imported here.

    python tiny_model_build.py GGUF TEMPLATE OUT

GGUF is SmolLM2-135M-Instruct, TEMPLATE the chat template, OUT an empty directory. Theory: the model has no word for
thinking, so it gets one. `<think>` and `</think>` become tokens whose embedding rows are the newline's row times 1.0
and 0.97. Input and output embeddings are one matrix, so after `<think>` the model goes on as after a newline, in whole
sentences, and `</think>` is nearly as likely as a newline: thinking ends by itself now and then, as a real one's does.
The tool-call markers get the mean row: never chosen freely, there when a grammar asks for them.
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

THINK_ROWS = {"<think>": 1.0, "</think>": 0.97}  # factor on the newline's row
TOOL_MARKERS = ("<tool_call>", "</tool_call>")


def build(gguf: Path, template: Path, out: Path) -> None:
    """Write config, weights (bfloat16, about 270 MB), tokenizer and chat template into `out`."""
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    source = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert len(newline) == 1, newline

    # A model that was loaded from GGUF refuses to be saved: its weights move into one that was not.
    config = {k: v for k, v in source.config.to_dict().items() if k != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig.from_dict(config)).to(torch.float32)
    model.load_state_dict(source.state_dict())

    markers = [*THINK_ROWS, *TOOL_MARKERS]
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=True) for text in markers])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = model.get_input_embeddings().weight.data
    mean = rows[: len(tokenizer) - len(markers)].mean(dim=0)
    for text in markers:
        factor = THINK_ROWS.get(text)
        row = mean if factor is None else rows[newline[0]] * factor
        rows[tokenizer.convert_tokens_to_ids(text)] = row

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
