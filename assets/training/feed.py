"""Worker processes that draw stories and cut captions into ids, so that the training process only launches kernels.

Each worker owns a queue; batches are taken in turn, so the order of clips does not depend on timing: batch j comes from worker j mod n and clip i in it is
number j * batch + i of its stream. This module must not touch a GPU: the workers are forked.
"""
import multiprocessing as mp
import os
import queue

import numpy as np

import language
import story
import words

WORDINGS = 2                                       # captions per clip


def facts(label):
    """The label as numbers [12] int16: actor, colour, motion, direction, scene, camera, weather, time, style, slot, number of actors, second actor."""
    m = words.MOTIONS[label["motion"]]
    a = label["actors"]
    return np.array([a[0][0], a[0][1], label["motion"], words.DIRECTIONS.index(m) if m in words.DIRECTIONS else 0, label["scene"], label["camera"],
                     label["weather"], label["time"], label["style"], label["slot"], len(a), a[1][0] if len(a) > 1 else -1], np.int16)


def draw(teller, purpose, seed, first, n, pieces, want):
    """n clips of a stream. Returns dict of arrays: the records, facts [n, 12], ids [n, WORDINGS, 64] (when pieces are given)."""
    records, labels, texts = [], [], []
    for i in range(first, first + n):
        rng = story.seeded(purpose, seed, i)
        r, l = teller.tell(rng, want)
        records.append(r)
        labels.append(facts(l))
        if pieces:
            texts += [language.caption(l, rng) for _ in range(WORDINGS)]
    out = story.stack(records)
    out["facts"] = np.stack(labels)
    if pieces:
        out["ids"] = pieces.encode(texts).astype(np.int16).reshape(n, WORDINGS, -1)
    return out


def teller_for(index, kind, frames, width, height, tier, held=False):
    """kind: "teller" or "jumble". Actors are those of the pack within the tier."""
    return (story.Jumble if kind == "jumble" else story.Teller)(index, frames, width, height, tier, held)


def _work(out, k, n, index, kind, frames, width, height, tier, purpose, seed, batch, tokenizer, want, start):
    os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pieces = None
    if tokenizer:
        from tokenizer import Pieces
        pieces = Pieces(tokenizer)
    teller, j = teller_for(index, kind, frames, width, height, tier), k
    while True:
        out.put(draw(teller, purpose, seed, start + j * batch, batch, pieces, want))
        j += n


class Feed:
    """Iterator over batches. Call close() at the end."""

    def __init__(self, index, kind, frames, width, height, tier, purpose, seed, batch, workers, tokenizer=None, want=None, start=0):
        ctx = mp.get_context("fork")
        self.queues = [ctx.Queue(4) for _ in range(workers)]
        args = (index, kind, frames, width, height, tier, purpose, seed, batch, tokenizer, want or {}, start)
        self.workers = [ctx.Process(target=_work, args=(q, k, workers, *args), daemon=True) for k, q in enumerate(self.queues)]
        for p in self.workers:
            p.start()
        self.j = 0

    def __next__(self):
        k = self.j % len(self.queues)
        while True:
            try:
                b = self.queues[k].get(timeout=5)
                break
            except queue.Empty:
                if not self.workers[k].is_alive():
                    raise RuntimeError("a worker that draws stories has died; its error is above") from None
        self.j += 1
        return b

    def close(self):
        for p in self.workers:
            p.terminate()
        for p in self.workers:
            p.join()
