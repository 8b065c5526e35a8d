"""Builds the text tokenizer: SentencePiece Unigram, 2,048 pieces, every word of the world one piece, bytes for the unknown.

Why Unigram with edits afterwards: trained on captions alone Unigram stops early and cuts "red" into "r ed"; trained on English
it has no room for "t-rex". So it learns from English lines in which the world's words are oversampled, and whatever word is still cut
takes the place of the least likely piece. Case is folded by the normaliser (nmt_nfkc_cf), so "A Red Car" is "a red car".

Writes tokenizer.json for Hugging Face `tokenizers`: SentencePiece's pieces, scores and byte fallback. SentencePiece's own file is not kept: nothing reads it.
Surprise: both must cut text the same way although SentencePiece takes the longest match in the normaliser's map and `tokenizers` the shortest;
same() compares them on the captions and on odd input and fails on any difference for plain text, when the tokenizer is built.

    python3 tokenizer.py OUT_DIR --english FILE     FILE: any English text, one line a sentence (the shipped one: 60,000 WordNet glosses)
"""
import argparse
import io
import json
import os
import random

import words

VOCAB = 2048
LENGTH = 64                      # ids per prompt, end mark and padding included


def train(english):
    """english: list of str. Returns a SentencePiece ModelProto in which all words of the world are whole."""
    import sentencepiece as spm
    from sentencepiece import sentencepiece_model_pb2 as pb
    ours = words.vocabulary() + words.function_words()
    rng = random.Random(0)
    lines = [l[:300] for l in english]
    for w in ours:
        lines += [" ".join(rng.sample(ours, 4) + [w]) for _ in range(60)]
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, model_type="unigram", vocab_size=VOCAB, byte_fallback=True,
                                   pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc_cf", character_coverage=0.9995,
                                   num_threads=1, minloglevel=2, max_sentence_length=4000)
    model = pb.ModelProto.FromString(out.getvalue())
    have = {p.piece for p in model.pieces}
    wanted = ["\u2581" + w for w in ours]
    keep = set(wanted)
    weak = sorted((p for p in model.pieces if p.type == 1 and p.piece not in keep and len(p.piece) > 1), key=lambda p: p.score)
    for w, p in zip([w for w in wanted if w not in have], weak):
        p.piece, p.score = w, -9.0
    return model


def fast(model):
    """model: ModelProto. Returns the same tokenizer for Hugging Face `tokenizers`: normaliser, Metaspace, Unigram with bytes, end mark."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, AddedToken
    t = Tokenizer(models.Unigram([(p.piece, p.score) for p in model.pieces], unk_id=2, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap), normalizers.Strip(left=True, right=True),
                                         normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement="\u2581", prepend_scheme="always")])
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in ("<pad>", "</s>", "<unk>")])
    return t


def save(model, out):
    """model: ModelProto; out: folder. Writes the three files a `tokenizer/` folder of a diffusers model holds."""
    os.makedirs(out, exist_ok=True)
    fast(model).save(os.path.join(out, "tokenizer.json"))
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    with open(os.path.join(out, "special_tokens_map.json"), "w") as f:
        json.dump(special, f, indent=1)
    with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
        json.dump({**special, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LENGTH, "padding_side": "right",
                   "clean_up_tokenization_spaces": False}, f, indent=1)


class Pieces:
    """Text to ids the way the engine does it. encode(list of str) -> int64 numpy [n, 64], zero after the end mark."""

    def __init__(self, folder):
        from tokenizers import Tokenizer
        self.t = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.t.enable_truncation(LENGTH)
        self.t.enable_padding(length=LENGTH, pad_id=0, pad_token="<pad>")

    def encode(self, texts):
        import numpy as np
        return np.array([e.ids for e in self.t.encode_batch(list(texts))], dtype=np.int64)


def check(out):
    """out: folder. Fails when a word of the world is cut."""
    t = Pieces(out)
    for w, ids in zip(words.vocabulary() + words.function_words(), t.encode(words.vocabulary() + words.function_words())):
        if (ids != 0).sum() != 2:                                  # itself and the end mark
            raise SystemExit(f"{w!r} is cut into {t.t.encode(w).tokens}")


def same(model, out):
    """model: ModelProto; out: folder. Fails when SentencePiece and tokenizer.json disagree."""
    import sentencepiece as spm
    slow, t = spm.SentencePieceProcessor(model_proto=model.SerializeToString()), Pieces(out)
    for text in ["A Red Car drives to the left in the city at night.", "  two   spaces ", "Zyzzyva, 1234 %!", "caf\u00e9 na\u00efve", "\u4e2d\u6587", "", "jack-o-lantern; t-rex?", "it's \u201cquoted\u201d"]:
        a, b = slow.encode(text) + [1], [i for i in t.encode([text])[0].tolist() if i]
        if a != b:
            raise SystemExit(f"{text!r}: {a} of SentencePiece, {b} of tokenizer.json")


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("out")
    a.add_argument("--english", required=True)
    a = a.parse_args()
    made = train(open(a.english, encoding="utf-8", errors="replace").read().splitlines())
    save(made, a.out)
    check(a.out)
    same(made, a.out)
