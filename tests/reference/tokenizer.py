"""Tokenizers in the UMT5 and Qwen2 styles, prompts, and what the reference libraries make of them: tests/golden/tokenizer.

    spiece.model, tokenizer.json   Unigram with bytes (sentencepiece), and its conversion by transformers' T5Converter
    qwen.json                      byte-level BPE with Qwen2's expression (tokenizers)
    nodes/*.json                   small tokenizers, one for each node type the two above do not use
    prompts.tsv                    prompt as hex bytes; ids by tokenizer.json, the same with byte_fallback, spiece.model, qwen.json
                                   ("=": as the column before; three hex digits an id); for some, text of the ids by tokenizer.json and qwen.json
    nodes.tsv                      file; prompt as hex; ids
    clean.txt                      for each line of prompts.tsv the prompt cleaned as Wan does it, hex; "=": unchanged; "-": ftfy's repair of
                                   mojibake, which we leave out, would give something else

Prompts may hold bytes that are not UTF-8; the libraries get them decoded with U+FFFD. None holds a NUL: prompts are C strings.

    python3 tokenizer.py            writes the folder anew (one thread, a minute)
"""
import glob
import html
import io
import json
import os
import random
import re
import shutil
import types
import unicodedata
import warnings

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "tokenizer")

SENTENCES = """
A red car drives to the left through a city at night while it rains.
Two anthropomorphic cats in comfy boxing gear and bright gloves fight intensely on a spotlighted stage.
The quick brown fox jumps over the lazy dog; 3 dogs watch, 1,234.56 seconds pass.
She said: "Don't you think it's what we'll need? I'd say they're DON'T'VE..."
Close-up, 35mm film, f/1.8, ISO-400, bokeh --ar 16:9 (cinematic) [masterpiece] {best quality:1.2}
Une voiture rouge traverse la forêt enneigée à l'aube, où l'œuvre naît d'un cœur ému.
Der Hund läuft schnell über die Straße, während größere Vögel am Fluß singen. GROẞ.
El niño pequeño corrió mañana por la montaña; ¿dónde está? ¡Aquí!
O cão não dorme na canção da manhã, são três corações.
Il gatto è già lì, perché non può più star così.
De kat zit op de mat en kijkt naar 's ochtends vroeg.
Kissa istuu ikkunalla ja katselee lumisadetta, hyvää yötä.
Katten sitter på fönsterbrädan och ser på snön, åäö ÅÄÖ.
Blåbærsyltetøy på brødskive, æble og ærlighed.
Zażółć gęślą jaźń, pchnąć w tę łódź jeża lub ośm skrzyń fig.
Příliš žluťoučký kůň úpěl ďábelské ódy.
Árvíztűrő tükörfúrógép egy őszi délutánon.
Pijamalı hasta yağız şoföre çabucak güvendi. İSTANBUL ıIiİ
Красная машина едет по ночному городу под дождём, а ёж спит.
Червоний автомобіль їде вночі містом, ґанок і їжак є.
Червена кола се движи през града.
Ένα κόκκινο αυτοκίνητο περνά τη νύχτα μέσα από την πόλη. ΟΔΥΣΣΕΥΣ ὕβρις
מכונית אדומה נוסעת בעיר בלילה בגשם. שָׁלוֹם
سيارة حمراء تسير في المدينة ليلاً تحت المطر. السَّلَامُ عَلَيْكُمْ ١٢٣
یک ماشین قرمز در شب از شهر می‌گذرد. ۱۲۳
ایک سرخ گاڑی رات کو شہر سے گزرتی ہے۔
एक लाल कार रात में बारिश में शहर से गुज़रती है। क्षत्रिय १२३
একটি লাল গাড়ি রাতে শহরের মধ্যে দিয়ে যায়।
ஒரு சிவப்பு கார் இரவில் நகரம் வழியாக செல்கிறது.
ఒక ఎర్ర కారు రాత్రి నగరం గుండా వెళుతుంది.
ಒಂದು ಕೆಂಪು ಕಾರು ರಾತ್ರಿ ನಗರದ ಮೂಲಕ ಚಲಿಸುತ್ತದೆ.
ഒരു ചുവന്ന കാർ രാത്രിയിൽ നഗരത്തിലൂടെ പോകുന്നു.
รถสีแดงวิ่งผ่านเมืองในเวลากลางคืนขณะฝนตก น้ำใจ
Một chiếc ô tô màu đỏ chạy qua thành phố vào ban đêm, Nguyễn Thị Ánh.
Sebuah mobil merah melaju melewati kota pada malam hari.
Gari jekundu linapita mjini usiku wakati wa mvua.
წითელი მანქანა ღამით ქალაქში მიდის.
Կարմիր մեքենան գիշերը անցնում է քաղաքով։
ቀይ መኪና በሌሊት በከተማ ውስጥ ያልፋል።
ယာဉ်အနီရောင်တစ်စီး ညဘက်တွင် မြို့ကိုဖြတ်သွားသည်။
រថយន្តក្រហមមួយបើកកាត់ទីក្រុងនៅពេលយប់។
一辆红色的汽车在夜晚的雨中穿过城市，镜头缓缓推进。
色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走
一隻貓坐在窗台上，看著外面的雪；「你好」，他說。２０２４年！
赤い車が雨の夜の街を走り抜ける。カメラはゆっくりと近づく。ｶﾀｶﾅ ㍿ ㌔
빨간 자동차가 비 오는 밤에 도시를 달린다. 한글 자모 ㄱㄴㄷ
""".strip().split("\n")

ODD = r"""
|
| |  |   |\t|\n|\r\n|\r|\u00a0|\u3000|\u2003|\u2028|\u2029|\u0085|\u200b|\ufeff|\u180e|\u202f|\u205f|\u1680
|a|A|é|e\u0301|E\u0301\u0327|ﬁ|ﬃ|①|½|²|™|Å|Ω|ſ|'ſ|I'ſ|K|İ|ı|ß|ẞ|ǆ|ŉ|…|‥|－|～|゛
| leading|trailing | both |in  between|in   the    middle|tab\there|line\nbreak|line\n\nbreaks\n\n\n|crlf\r\nhere\r\n|\n\nstart| \n \n |x \n  y|x\n  y|   x|x   
|mon\u180egolian \u180e space\u180e|zero\u200bwidth|word\u2060joiner|soft\u00adhyphen|nb\u00a0sp\u00a0|ideo\u3000graphic|\ufeffbom|mid\ufeffbom
|▁|▁▁|▁▁▁ a|a▁b|▁a ▁b| ▁ |▁ | ▁a▁ |a▁▁b▁
|<pad>|</s>|<s>|<unk>|<unk><unk>|hello</s>world|hello </s> world|<extra_id_0>|a<extra_id_0>b <extra_id_1> c|<extra_id_9><extra_id_1>|<extra_id_10>|<extra_id_|<EXTRA_ID_0>|<0x41>|<0x0A>x|</s|</s></s>
|<\\|endoftext\\|>|<\\|im_start\\|>user\nhi<\\|im_end\\|>\n|a<\\|im_end\\|>b|<\\|im_end\\| >|<tool_call>{"a": 1}</tool_call>|  <\\|im_start\\|>  
|😀|👍🏽|👨‍👩‍👧‍👦|🏳️‍🌈|🇩🇪🇫🇷|🇩|☺️|☺|❤️‍🔥|1️⃣|🧑🏿‍🚀 in space 🚀🚀|a😀b|😀😀😀😀|👩🏻‍❤️‍💋‍👨🏼|🫠|🤷‍♀️ ok
|ᄒ\u1161\u11ab|한\u11ab|각\u11a8|क\u094dष|நி|ำ|กำ|น\u0e49ำ|z\u0335\u0321\u0322a\u0315\u031b\u0340l\u0341g\u0358o|a\u0301\u0323|a\u0323\u0301|\u0301start|q\u0307\u0323|\u1e9b\u0323|\u0344|\u212b|\ufb1d|\u2126
|Don't DON'T don’t I'll I'LL we've WE'VE he'd 's 'S 't' ''s it'sss|1|12|123|1234567890|3.14|1,000|1st 2nd|x2|٣٤٥|Ⅷ|௧௨|½¼|¹²³|v1.2.3-rc4+5|0x1F|1e-9|#1|$5|50%|€10|10€
|!!!|?!?!|...|---|—–-|"quotes"|“curly” ‘single’ „low“ «guillemets»|(a)(b)|[x]{y}|a/b\\c|a_b|__init__|@user #tag|https://example.org/a?b=c&d=e#f|a@b.c|C++ C# F#|foo(bar, baz);|if (x<3 && y>4) { return; }|*bold* _it_ ~~no~~|:-) ;) <3 \\o/|+=|=>|->|<=|≠≤≥|∑∫√∞|→←↑↓|♥♦♣♠|█▓▒░|─│┌┐
|camelCaseWord|snake_case_word|kebab-case-word|UPPERCASE|MiXeD|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|abababababababababab|supercalifragilisticexpialidocious|antidisestablishmentarianism|Donaudampfschifffahrtsgesellschaftskapitän|zxqj vbnm wqrt|\x01\x02|a\x07b|\x7f|\x1b[31mred\x1b[0m|\x0b\x0c|\x1c\x1d\x1e\x1f|a\x0bb\x0cc
|&amp;|&lt;b&gt;|&amp;lt;|&amp;amp;lt;|&notit;|&not|&nbsp;x|&#65;|&#x41;|&#0;|&#x110000;|&#xD800;|&#128;|&#x80;|&#1;|&#11;|&#64976;|&#;|&#x;|&;|&|&&|&copy|&copy;|&COPY;|&EACUTE;|&eacute;|P&EACUTE;REZ|&SZLIG;|&unknown;|&NotEqualTilde;|&fjlig;|<b>hi</b> &amp; bye|a &lt b|&ampamp;|&#65|&#6565656565656565656;|&hellip;|&quot;x&quot;|&QUOT;|&apos;|&#39;|&#x27;|&lsquo;x&rsquo;|x &#38;#38; y|&zwj;|&Tab;|&NewLine;|&ThickSpace;
|ＬＯＵＤ　ＮＯＩＳＥＳ|ﬂuﬃeﬆ|ﾊﾝｶｸ|don’t|“x”|ĳssel|Ǆ|\u206a\u206f|\ufff9x\ufffb|x\ufffcx|\ufffd|\u0080|\u0085x|\x9fx|\u0091quoted\u0092|a\u2028b\u2029c|\u00a0|\u2000a\u200a|a\n<b>\n&amp;|&amp;\n<\n&amp;|&lt;\n&gt;
|schÃ¶n|cafÃ©|âœ” No problems|l’humanitÃ©|Ã n|ä½\xa0å¥½|â€œquotedâ€\x9d|voilÃ\xa0|Ã‰|naÃ¯ve|â„¢|ðŸ˜€|Â©|×²|I'm â€˜sureâ€™
""".strip().split("\n")

BROKEN = [b"\x80", b"\xff\xfe", b"a\xc3", b"a\xc3(b", b"\xe2\x82", b"\xe2\x82\xacok\xe2\x28\xa1", b"\xf0\x9f\x98", b"\xf0\x9f\x98\x80\xf0\x9f",
          b"\xed\xa0\x80\xed\xb0\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"caf\xe9 na\xefve", b"\xfe\xfe\xff\xff",
          b"x\x80\x80\x80y", b"\xe4\xbd\xa0\xe5\xa5", b"\xd0\x9f\xd1", b"ok \xf0\x28\x8c\xbc", b"\xf0\x90\x28\xbc", b"\xe1\xa0\xc0\xa0\x8e", b"\xef\xbf", b"\xef\xbf\xbe",
          b"\xf0\x9f\x92\xa9\xed\xa0\xbd\xed\xb2\xa9", b"</s\xffs>", b"<|im_\xc3start|>", b"\xc2\xa0\xc2", b"a\xccb", b"\xcc\x81\xcc", b" \xff "]


def odd():
    out = []
    for line in ODD:
        for part in re.split(r"(?<!\\)\|", line[1:]):
            out.append(part.encode("latin-1", "backslashreplace").decode("unicode_escape").replace("\\|", "|"))
    return out


def prompts():
    """list of bytes, no NUL, no duplicates"""
    rng = random.Random(7)
    out = [s for s in SENTENCES]
    out += odd()
    out += [s.upper() for s in SENTENCES[:24]] + [s.lower() for s in SENTENCES[::3]] + [unicodedata.normalize("NFD", s) for s in SENTENCES[5:47:2]]
    out += [unicodedata.normalize("NFKD", s) for s in SENTENCES[6:47:5]]
    words = [w for s in SENTENCES for w in s.split()]
    junk = ["😀", "  ", "\n", "\t", "é", "e\u0301", "</s>", "<extra_id_3>", "<|im_end|>", "…", "１２", "'s", "\u00a0", "\u200d", "▁", "\U0001f3fd", "\u0e33", "”", "&amp;", "\u3000", "7", "!!"]
    for _ in range(150):
        out.append(rng.choice(["", " "]).join(rng.choice(words if rng.random() < 0.7 else junk) + rng.choice(["", " ", "  "]) for _ in range(rng.randint(1, 9))))
    planes = [(0x20, 0x7e)] * 3 + [(0xa0, 0x17f), (0x300, 0x36f), (0x370, 0x5ff), (0x600, 0x6ff), (0x900, 0xdff), (0xe00, 0x11ff), (0x1e00, 0x1fff), (0x2000, 0x2bff),
              (0x3000, 0x33ff), (0x4e00, 0x4eff), (0xac00, 0xad00), (0xfb00, 0xfdff), (0xfe00, 0xffef), (0x1d400, 0x1d7ff), (0x1f300, 0x1f64f)]
    for _ in range(100):
        text = ""
        while len(text) < rng.randint(4, 24):
            a, b = rng.choice(planes)
            c = chr(rng.randint(a, b))
            if unicodedata.category(c) != "Cn":
                text += c
        out.append(text)
    out += [" ".join(words[i % len(words)] for i in range(600)), "a" * 1500, " " * 1000 + "x", "あ" * 300, "\u0301" * 200, "😀" * 150]
    raw = [s.encode() for s in out] + BROKEN
    raw += [s[:rng.randint(1, len(s))] for s in [rng.choice(SENTENCES[18:]).encode() for _ in range(40)]]
    raw += [bytes(b for b in (rng.randint(1, 255) for _ in range(rng.randint(3, 20)))) for _ in range(40)]
    seen, unique = set(), []
    for r in raw:
        if r not in seen and b"\0" not in r:
            seen.add(r)
            unique.append(r)
    return unique


def corpus():
    rng = random.Random(3)
    words = [w for s in SENTENCES for w in s.split()]
    lines = SENTENCES * 6
    for _ in range(1500):
        lines.append(" ".join(rng.sample(words, 6)))
    return lines


def train_unigram():
    import sentencepiece as spm
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(corpus()), model_writer=out, model_type="unigram", vocab_size=1250, byte_fallback=True, pad_id=0,
                                   eos_id=1, bos_id=2, unk_id=3, normalization_rule_name="nmt_nfkc", character_coverage=0.985, num_threads=1, minloglevel=2,
                                   user_defined_symbols=["<user>", "16:9"])
    with open(os.path.join(OUT, "spiece.model"), "wb") as f:
        f.write(out.getvalue())


def convert():
    """tokenizer.json as transformers makes it of a T5 spiece.model, ten sentinels"""
    from transformers.convert_slow_tokenizer import T5Converter
    from tokenizers import AddedToken
    path = os.path.join(OUT, "spiece.model")
    slow = types.SimpleNamespace(vocab_file=path, _extra_ids=10, add_prefix_space=True, legacy=False, convert_tokens_to_ids=lambda t: {"</s>": 1}[t])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        t = T5Converter(slow).converted()
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in ["<pad>", "</s>", "<unk>"] + [f"<extra_id_{i}>" for i in range(10)]])
    save(t, "tokenizer.json")


def save(t, name):
    data = json.loads(t.to_str())
    with open(os.path.join(OUT, name), "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, separators=(",", ":"))


QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_bpe():
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=2000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>"]])
    t.add_tokens([AddedToken(s, special=False, normalized=False) for s in ["<tool_call>", "</tool_call>"]])
    save(t, "qwen.json")


def nodes():
    """name → tokenizer, covering every node type"""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers as N, pre_tokenizers as P, processors, trainers
    def small(pre, norm=None, **kw):
        t = Tokenizer(models.BPE(**{k: v for k, v in kw.items() if k in ("unk_token", "fuse_unk", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")}))
        if norm:
            t.normalizer = norm
        if pre:
            t.pre_tokenizer = pre
        special = ["[UNK]", "[CLS]", "[SEP]"]
        t.train_from_iterator(SENTENCES[:20] + SENTENCES[41:], trainers.BpeTrainer(vocab_size=kw.get("size", 260), limit_alphabet=kw.get("alphabet", 70), special_tokens=special, show_progress=False,
                              **{k: v for k, v in kw.items() if k in ("continuing_subword_prefix", "end_of_word_suffix")}))
        return t
    out = {}
    for b in ("isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"):
        out["split_" + b] = small(P.Sequence([P.Split("e", b), P.Split(Regex(r"[ .,]+"), b, invert=b == "contiguous")]), unk_token="[UNK]", size=180)
    out["punctuation"] = small(P.Sequence([P.WhitespaceSplit(), P.Punctuation(), P.Digits(individual_digits=False)]), N.Sequence([N.NFKD(), N.Lowercase()]), unk_token="[UNK]", fuse_unk=True)
    out["digits"] = small(P.Sequence([P.Punctuation("merged_with_previous"), P.Digits(individual_digits=True)]), N.Sequence([N.Strip(left=True, right=False), N.NFD()]), unk_token="[UNK]")
    out["nmt"] = small(P.WhitespaceSplit(), N.Sequence([N.Nmt(), N.NFKC(), N.Replace("a", "oo"), N.Replace(Regex("[0-9]{2,}"), "#")]))
    out["suffix"] = small(P.WhitespaceSplit(), None, unk_token="[UNK]", end_of_word_suffix="</w>")
    out["prefix"] = small(P.WhitespaceSplit(), None, unk_token="[UNK]", continuing_subword_prefix="##")
    out["prepend"] = small(None, N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")]), unk_token="[UNK]", fuse_unk=True)
    out["gpt2"] = small(P.ByteLevel(add_prefix_space=True), size=420, alphabet=256)
    for scheme in ("first", "never"):
        out["metaspace_" + scheme] = small(P.Metaspace(prepend_scheme=scheme, split=scheme == "never"), None, unk_token="[UNK]")
        out["metaspace_" + scheme].add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    t = out["added"] = small(P.WhitespaceSplit(), N.Lowercase(), unk_token="[UNK]")
    t.add_tokens([AddedToken("<L>", lstrip=True, normalized=False), AddedToken("<R>", rstrip=True, normalized=False), AddedToken("<LR>", lstrip=True, rstrip=True, normalized=False),
                  AddedToken("cat", single_word=True, normalized=False), AddedToken("DOG", normalized=True), AddedToken("Ab", normalized=True, single_word=True), AddedToken("<x", normalized=False),
                  AddedToken("<xy>", normalized=False)])
    t.post_processor = processors.TemplateProcessing(single="[CLS] [CLS] $A [SEP]", special_tokens=[("[CLS]", t.token_to_id("[CLS]")), ("[SEP]", t.token_to_id("[SEP]"))])
    t = out["bert"] = small(P.WhitespaceSplit(), N.Strip(left=False, right=True), unk_token="[UNK]")
    t.post_processor = processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]")))
    t = out["bytes"] = small(None, N.Replace(" ", "▁"), unk_token="[UNK]", byte_fallback=True, fuse_unk=True)
    data = json.loads(t.to_str())
    n = max(data["model"]["vocab"].values()) + 1
    data["model"]["vocab"].update({f"<0x{i:02X}>": n + i for i in range(256) if i not in (0xe4, 0xe5)})
    data["model"]["ignore_merges"] = True
    out["bytes"] = Tokenizer.from_str(json.dumps(data))
    return out


NODE_PROMPTS = ["", " ", "The quick brown fox, 3 dogs & 1,234.56!", "  eee e..e,, e ", "cat cats bobcat cat's _cat cat", "a  <L>b", "a  <R>  b<R>", "x  <LR>  y <LR><LR> z", "dog DOG Dog", "ab abc Ab", "<xy> <x y>",
                "e", "ee", "12 345 ٣٤٥ Ⅷ½", "ΟΔΥΣΣΕΥΣ İSTANBUL", "\u200b\u2581x\ufeff\u0001y\tz", "é e\u0301 ﬁ ①", "一辆红色的汽车，你好。", "😀 日本", "</s>hello </s> world", " </s>x", "</s>", "\u00a0x\u00a0", "\n a \n",
                "$5 + 3 = <8> ^ `x` |y| ~z", "a.b,c d", "Don't we'LL 's", "it  is   so", "unknown ∑∫ xx 猫猫 yy", "\u24b6cat", "cat\u0301", "(cat)", "ÀÉÎ õü", "▁a ▁b", "a\u180eb"]


def reference(text):
    """cleaned as diffusers' pipeline_wan does it"""
    import ftfy
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text.strip()).strip()


def plain(text):
    import ftfy
    text = html.unescape(html.unescape(ftfy.fix_text(text, fix_encoding=False)))
    return re.sub(r"\s+", " ", text.strip()).strip()


def pack(ids):
    return "".join("%03x" % i for i in ids)


def main():
    import sentencepiece as spm
    from tokenizers import Tokenizer
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(os.path.join(OUT, "nodes"))
    train_unigram()
    convert()
    train_bpe()
    fast = Tokenizer.from_file(os.path.join(OUT, "tokenizer.json"))
    data = json.loads(fast.to_str())
    data["model"]["byte_fallback"] = True
    bytes_ = Tokenizer.from_str(json.dumps(data))
    slow = spm.SentencePieceProcessor(model_file=os.path.join(OUT, "spiece.model"))
    qwen = Tokenizer.from_file(os.path.join(OUT, "qwen.json"))
    all_ = prompts()
    with open(os.path.join(OUT, "prompts.tsv"), "w") as f:
        for i, raw in enumerate(all_):
            text = raw.decode("utf-8", "replace")
            row = [fast.encode(text).ids, bytes_.encode(text).ids, slow.encode(text) + [slow.eos_id()], qwen.encode(text).ids]
            cells = [pack(r) for r in row]
            back = [fast.decode(row[0]).encode().hex(), qwen.decode(row[3]).encode().hex()] if i < 160 and len(raw) < 60 else ["", ""]
            cells = [c if k == 0 or c != cells[k - 1] else "=" for k, c in enumerate(cells)]
            f.write("\t".join([raw.hex()] + cells + back) + "\n")
    with open(os.path.join(OUT, "nodes.tsv"), "w") as f:
        for name, t in nodes().items():
            save(t, f"nodes/{name}.json")
            t = Tokenizer.from_file(os.path.join(OUT, f"nodes/{name}.json"))
            for p in NODE_PROMPTS:
                f.write(f"{name}\t{p.encode().hex()}\t{pack(t.encode(p).ids)}\n")
    changed = 0
    with open(os.path.join(OUT, "clean.txt"), "w") as f:
        for raw in all_:
            text = raw.decode("utf-8", "replace")
            want = reference(text)
            same = want == plain(text)
            changed += not same
            f.write("-\n" if not same else "=\n" if want.encode() == raw else want.encode().hex() + "\n")
    print(len(all_), "prompts,", changed, "changed by mojibake repair,", sum(os.path.getsize(p) for p in glob.glob(OUT + "/**", recursive=True) if os.path.isfile(p)), "bytes")


if __name__ == "__main__":
    main()
