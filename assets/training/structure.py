"""What a trained model's attention leaves to gain: a figure and its numbers, from genvid calibrate's JSON.

    genvid calibrate MODEL PROMPT... --size 256x256 --frames 65 --json > whole.json
    genvid calibrate MODEL PROMPT... --size 256x256 --frames 69 --causal on --json > causal.json
    python3 assets/training/structure.py whole.json causal.json assets/models/evaluation/attention

writes attention.json and attention.svg. Left: of each layer, the share of the softmax that the best 10, 25 and 50 % of key blocks
(64 keys, for each tile of 128 queries and head) hold; a layer that reads all keys alike is at 10, 25, 50 %. Right: the cosine
between a denoising pass's attention and the pass before's, to the history and to the block's own frames. Plain Python, no library."""
import json
import sys

W, H, LEFT, TOP = 420, 240, 44, 34  # a panel and its margins


def panel(x0, title, lines, layers, guides=()):
    """One plot: lines [(name, colour, values in 0..1)], guides [(value, colour)] drawn dashed."""
    def at(i, v):
        return f"{x0 + LEFT + i * (W - LEFT - 20) / (layers - 1):.1f},{TOP + (1 - v) * (H - TOP - 40):.1f}"
    out = [f'<text x="{x0 + LEFT}" y="16" font-size="13">{title}</text>']
    for v in (0, 0.25, 0.5, 0.75, 1):
        y = float(at(0, v).split(",")[1])
        out.append(f'<path d="M{at(0, v)} L{at(layers - 1, v)}" stroke="#ddd"/><text x="{x0 + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{v:g}</text>')
    for i in range(layers):
        out.append(f'<text x="{at(i, 0).split(",")[0]}" y="{H - 24}" text-anchor="middle">{i}</text>')
    for v, colour in guides:
        out.append(f'<path d="M{at(0, v)} L{at(layers - 1, v)}" stroke="{colour}" stroke-dasharray="3 4" opacity="0.6"/>')
    for n, (name, colour, values) in enumerate(lines):
        out.append(f'<polyline points="{" ".join(at(i, max(0, v)) for i, v in enumerate(values))}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{x0 + LEFT + n * 120}" y="{H - 6}" fill="{colour}">{name}</text>')
    return "\n".join(out)


def main():
    whole, causal = (json.load(open(p)) for p in sys.argv[1:3])
    held = [layer["held"] for layer in whole["layers"]]
    history, own = ([layer[k] for layer in causal["layers"]] for k in ("history_cosine", "own_cosine"))
    colours = ("#b2182b", "#2166ac", "#4d9221")
    left = panel(0, "softmax held by the best blocks, by layer", [(f"best {p} %", c, [h[i] for h in held]) for i, (p, c) in enumerate(zip((10, 25, 50), colours))],
                 len(held), list(zip((0.1, 0.25, 0.5), colours)))
    right = panel(W, "cosine with the pass before, by layer", [("history", colours[1], history), ("own block", colours[0], own)], len(history))
    with open(sys.argv[3] + ".svg", "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * W}" height="{H}" font-family="sans-serif" font-size="11">\n'
                f'<rect width="100%" height="100%" fill="white"/>\n{left}\n{right}\n</svg>\n')
    numbers = {"whole": {k: whole[k] for k in ("prompts", "density", "ratios")}, "causal": {k: causal[k] for k in ("prompts", "fresh_heads")}}
    numbers["whole"]["held"] = held
    numbers["causal"].update(history_cosine=history, own_cosine=own)
    with open(sys.argv[3] + ".json", "w") as f:
        json.dump(json.loads(json.dumps(numbers), parse_float=lambda x: round(float(x), 4)), f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
