"""A small Unigram tokenizer in the style of the T5 family's tokenizer.json, for the pipeline goldens.

pad 0, </s> 1, <unk> 2; normalizer Sequence[Precompiled, Strip right, Replace " {2,}"], pre-tokenizer Metaspace, </s>
appended, no byte fallback. The charsmap is compiled from the few rules below, so that the file stays small.
"""
import os
import tempfile

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import T5Tokenizer

SUBJECTS = ["a red fox", "a small dog", "two horses", "an old robot", "a white cat", "the blue bird", "a girl in a red coat",
            "a fishing boat", "three sheep", "a yellow taxi", "ein roter Fuchs", "un chat noir", "una barca vieja"]
ACTIONS = ["runs to the left", "walks slowly to the right", "jumps over a fence", "flies above the trees", "turns around",
           "sleeps near the fire", "drives through the rain", "läuft durch den Schnee", "saute sur la table"]
PLACES = ["in the snow", "on a beach at sunset", "in the city at night", "under a cloudy sky", "in a green forest",
          "beside the river", "on the moon", "in der Stadt", "dans la rue", "en el mar"]
STYLES = ["watercolor style", "wide shot, soft light", "close up, shallow focus", "low quality, blurry, worst quality",
          "static camera", "the camera pans slowly", "black and white, film grain"]
RULES = [("，", ","), ("。", "."), ("！", "!"), ("\u00a0", " "), ("\u3000", " "), ("\t", " "), ("ﬁ", "fi"), ("e\u0301", "é"),
         ("Ａ", "A"), ("…", "...")]


def sentences():
    for i, s in enumerate(SUBJECTS):
        for j, a in enumerate(ACTIONS):
            for k, p in enumerate(PLACES):
                yield "%s %s %s, %s." % (s, a, p, STYLES[(i + 2 * j + 3 * k) % len(STYLES)])


def tokenizer(vocabulary=384):
    with tempfile.TemporaryDirectory() as tmp:
        rules = os.path.join(tmp, "rules.tsv")
        with open(rules, "w", encoding="utf-8") as f:
            for a, b in RULES:
                f.write("%s\t%s\n" % (" ".join("%X" % ord(c) for c in a), " ".join("%X" % ord(c) for c in b)))
        prefix = os.path.join(tmp, "m")
        spm.SentencePieceTrainer.train(sentence_iterator=sentences(), model_prefix=prefix, model_type="unigram",
                                       vocab_size=vocabulary, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
                                       pad_piece="<pad>", normalization_rule_tsv=rules, num_threads=1,
                                       minloglevel=2)
        proto = sentencepiece_model_pb2.ModelProto()
        with open(prefix + ".model", "rb") as f:
            proto.ParseFromString(f.read())
    t = T5Tokenizer(vocab=[(p.piece, p.score) for p in proto.pieces], extra_ids=0)
    inner = t.backend_tokenizer
    inner.normalizer = normalizers.Sequence([
        normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
        normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(" {2,}"), "▁")])
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    return t


if __name__ == "__main__":
    t = tokenizer()
    for text in ["a red fox runs", "", "naïve  zebra！", "A quick ﬁsh…"]:
        ids = t(text).input_ids
        print(repr(text), ids, t.convert_ids_to_tokens(ids))
