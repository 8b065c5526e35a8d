"""What the captioner reads and says: its tokenizer, the questions, the one wording of each clip, and how a caption is read back into slots.

The wording is language.canonical(), so that captions can be compared word by word. Of a single picture nothing that moves is told: "A red car in the city at
night." Second actors are left out, as for the probe.

slots() inverts the wording: a caption becomes {slot: value}, with the slots that the clip's labels have. F1 counts these pairs: precision over those said,
recall over those true. "Natural" colours, plain days, still cameras and the like are said by silence and are no pairs.
"""
import json
import os

import numpy as np
import torch

import language
import words as w

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PIECES = 768                                         # with the control tokens
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"     # Qwen2's
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
CLIP_QUESTIONS = ("Describe this video.", "Describe this video.", "What is in this video?", "Caption this clip.", "What happens here?", "Describe this clip.")
PICTURE_QUESTIONS = ("Describe this image.", "Describe this image.", "What is in this picture?", "Caption this image.", "Describe this picture.")
TEMPLATE = ("{% for m in messages %}{% if loop.first and m.role != 'system' %}" + SYSTEM.split("<|im_start|>user")[0].replace("\n", "\\n") + "{% endif %}<|im_start|>{{ m.role }}\n"
            "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
            "{% elif c.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}").replace("\\n", "\n")
SLOTS = {"actor": 0, "colour": 1, "motion": 2, "scene": 4, "camera": 5, "weather": 6, "time": 7, "style": 8}    # name: column of feed.facts
ALWAYS, MOVING = ("actor", "motion", "scene"), ("motion", "camera")


def label(facts):
    return {"actors": [(int(facts[0]), int(facts[1]))], **{k: int(facts[c]) for k, c in SLOTS.items() if k not in ("actor", "colour")}}


def wording(facts, picture=False):
    """The one wording of a row of facts."""
    l = label(facts)
    if not picture:
        return language.canonical(l)
    text = language.canonical(dict(l, motion=0, camera=0))
    return text.replace(" " + language.predicate(l["actors"][0][0], 0, 0, None, True) + " ", " ", 1)


def _first(text, options):
    """The longest option that text begins with, as (index, rest); (None, text) if there is none."""
    best = max(((len(s), i) for i, s in options if s and (text + " ").startswith(s + " ")), default=None)
    return (None, text) if best is None else (best[1], text[best[0]:].lstrip())


def slots(text):
    """A caption → {slot: index}. What does not fit the wording ends the reading of its sentence: nothing is guessed."""
    parts, out = [p.strip() for p in text.lower().split(".") if p.strip()], {}
    rest = parts[0] if parts else ""
    rest = rest.partition(" ")[2] if rest.split(" ")[0] in ("a", "an") else rest
    colour, rest = _first(rest, list(enumerate(w.COLOURS))[1:])
    actor, rest = _first(rest, [(i, a.name.lower()) for i, a in enumerate(w.ACTORS)])
    if actor is None:
        return out
    out["actor"] = actor
    if colour:
        out["colour"] = colour
    motion, rest = _first(rest, [(i, language.predicate(actor, i, 0, None, True)) for i, m in enumerate(w.MOTIONS) if m in w.ALLOWED[w.ACTORS[actor].way]])
    scene, rest = _first(rest, [(i, s.said[0]) for i, s in enumerate(w.SCENES)])
    time, _ = _first(rest, [(i, w.TIME_SAID[t][0]) for i, t in enumerate(w.TIMES)][1:])
    for name, value in (("motion", motion), ("scene", scene), ("time", time)):
        if value is not None:
            out[name] = value
    for p in parts[1:]:
        for name, values, said in (("weather", w.WEATHERS, w.WEATHER_SAID), ("camera", w.CAMERAS, w.CAMERA_SAID)):
            for i, v in enumerate(values[1:], 1):
                if p == said[v][0]:
                    out[name] = i
        if p == w.STYLE_SAID["cartoon"][0]:
            out["style"] = 1
    return out


def true_slots(facts, picture=False):
    return {k: int(facts[c]) for k, c in SLOTS.items() if (k in ALWAYS or facts[c]) and not (picture and k in MOVING)}


def score(texts, facts, picture=False):
    """F1 over all slots ("f1"), per slot, and the share of captions with every slot right ("whole")."""
    both, said, true, whole = dict.fromkeys(SLOTS, 0), dict.fromkeys(SLOTS, 0), dict.fromkeys(SLOTS, 0), 0
    for text, f in zip(texts, facts):
        a, b = slots(text), true_slots(f, picture)
        whole += a == b
        for k in SLOTS:
            both[k] += k in a and a[k] == b.get(k)
            said[k] += k in a
            true[k] += k in b
    f1 = lambda x, y, z: 2 * x / max(1, y + z)
    return {"f1": f1(sum(both.values()), sum(said.values()), sum(true.values())), **{k: f1(both[k], said[k], true[k]) for k in SLOTS}, "whole": whole / max(1, len(texts))}


def make_tokenizer():
    """Byte-level BPE over the wording, in the layout of Qwen2's tokenizer.json."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    lines = [SYSTEM.replace("<|im_start|>", "").replace("<|im_end|>", ""), "assistant\n"] * 2000 + list(CLIP_QUESTIONS + PICTURE_QUESTIONS) * 2000
    for i, a in enumerate(w.ACTORS):
        for m in w.ALLOWED[a.way]:
            for c in range(len(w.COLOURS) if a.recolour else 1):
                l = {"actors": [(i, c)], "motion": w.MOTIONS.index(m), "scene": (i * 7 + w.MOTIONS.index(m) * 5 + c) % len(w.SCENES), "time": (i + c) % 3,
                     "camera": (i * 3 + w.MOTIONS.index(m) + c) % len(w.CAMERAS), "weather": (i + w.MOTIONS.index(m) * 3 + c) % len(w.WEATHERS), "style": (i + c) % 2}
                lines += [language.canonical(l)] * (1 if a.recolour else 4)
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder, t.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=PIECES - len(CONTROL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_special_tokens([AddedToken(c, special=True, normalized=False) for c in CONTROL])
    return t


class Words:
    """Prompts and targets as ids. file: a tokenizer.json; one is made where there is none."""

    def __init__(self, file, device):
        from tokenizers import Tokenizer
        self.t = Tokenizer.from_file(file) if file and os.path.exists(file) else make_tokenizer()
        self.ids, self.known = lambda s: self.t.encode(s, add_special_tokens=False).ids, {}
        self.before = torch.tensor(self.ids(SYSTEM + "<|vision_start|>"), device=device)
        self.end, self.pad, self.device = self.t.token_to_id("<|im_end|>"), self.t.token_to_id("<|endoftext|>"), device

    def ask(self, question):
        return self.ids("<|vision_end|>" + question + "<|im_end|>\n<|im_start|>assistant\n")

    def quick(self, text):
        """ids(text), from the ids of its words: no piece reaches over a blank."""
        out = []
        for i, word in enumerate(text.split(" ")):
            word = word if i == 0 else " " + word
            if word not in self.known:
                self.known[word] = self.ids(word)
            out += self.known[word]
        return out

    def batch(self, facts, question, picture=False):
        """ids [B, m] behind the clip, the targets of each [B, m], -100 where nothing is asked, and where the answer begins."""
        ask, rows = self.ask(question), [self.quick(wording(f, picture)) + [self.end] for f in facts]
        m = max(map(len, rows))
        ids = np.full((len(rows), len(ask) + m), self.pad, np.int64)
        want = np.full(ids.shape, -100, np.int64)
        for i, r in enumerate(rows):
            ids[i, :len(ask) + len(r)] = ask + r
            want[i, len(ask) - 1:len(ask) - 1 + len(r)] = r
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(want).to(self.device), len(ask) - 1


def check():
    """Every wording can be read back, and needs few tokens."""
    rng, x, long = np.random.default_rng(0), Words(None, "cpu"), []
    for _ in range(3000):
        f = np.zeros(12, np.int16)
        f[0] = rng.integers(len(w.ACTORS))
        allowed = w.ALLOWED[w.ACTORS[f[0]].way]
        f[1], f[2], f[4] = rng.integers(len(w.COLOURS)), w.MOTIONS.index(allowed[rng.integers(len(allowed))]), rng.integers(len(w.SCENES))
        f[5], f[6], f[7], f[8] = rng.integers(len(w.CAMERAS)), rng.integers(len(w.WEATHERS)), rng.integers(len(w.TIMES)), rng.integers(2)
        text = wording(f)
        assert slots(text) == true_slots(f), (text, slots(text), true_slots(f))
        assert slots(wording(f, True)) == true_slots(f, True), wording(f, True)
        assert x.t.decode(x.ids(text)) == text and x.quick(text) == x.ids(text), text
        long.append(len(x.ids(text)))
    print(json.dumps({"tokens_mean": float(np.mean(long)), "most": max(long), "prompt": len(x.before) + len(x.ask(CLIP_QUESTIONS[0])), "vocabulary": x.t.get_vocab_size(), "picture": wording(f, True)}))


if __name__ == "__main__":
    check()
