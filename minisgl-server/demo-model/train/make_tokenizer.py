"""Trains the byte-level BPE tokenizer on the training text.

    python make_tokenizer.py --data /tmp/demo/train.jsonl --out FOLDER

Digits stand alone and words keep their leading space, as in Qwen's tokenizer. There is no
normalizer: every UTF-8 text comes back exactly as it was.
"""

import argparse
import json

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = """{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def texts(path, limit):
    with open(path, encoding="utf-8") as file:
        for _, line in zip(range(limit), file):
            item = json.loads(line)
            yield from [item["text"]] if "text" in item else (m["content"] for m in item["messages"])


def train(path, size, limit):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts(path, limit), trainer)
    return tokenizer


def config():
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
            for i, t in enumerate(SPECIAL)
        },
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 2048,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--limit", type=int, default=60000, help="documents to look at")
    args = parser.parse_args()
    tokenizer = train(args.data, args.size, args.limit)
    tokenizer.save(f"{args.out}/tokenizer.json")
    with open(f"{args.out}/tokenizer_config.json", "w") as file:
        file.write(json.dumps(config(), indent=2) + "\n")
    with open(f"{args.out}/chat_template.jinja", "w") as file:
        file.write(CHAT_TEMPLATE)
    print("vocabulary:", tokenizer.get_vocab_size())


if __name__ == "__main__":
    main()
