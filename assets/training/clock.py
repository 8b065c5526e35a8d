"""The wall clock of a training leg: the schedule by time, saving every two minutes, stopping on its own; and the options of every trainer. All trainers share it.

Why by time and not by steps: device time is counted by the minute; a leg must end inside it whatever the speed turns out to be.
"""
import argparse
import json
import os
import time

import torch

SAVE_EVERY = 120.0
MODELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../models")    # what ships


class Clock:
    """minutes: length of the leg. warm: steps of warm-up. fall: the last share of the leg in which the rate falls to `floor`.
    Time before start() (loading, compiling) counts towards the leg but not towards the schedule."""

    def __init__(self, minutes, warm=200, fall=0.35, floor=0.02, begun=None):
        self.begun, self.minutes, self.warm, self.fall, self.floor = begun or time.time(), minutes, warm, fall, floor
        self.n, self.saved, self.from_ = 0, time.time(), None

    def start(self):
        self.from_ = time.time()

    def left(self):
        return self.begun + 60 * self.minutes - time.time()

    def share(self):
        """0 at start(), 1 at the end of the leg."""
        a = self.from_ or self.begun
        return min(1.0, (time.time() - a) / max(1e-6, self.begun + 60 * self.minutes - a))

    def factor(self):
        """Multiplies the peak learning rate for the next step; counts it."""
        self.n += 1
        warm = min(1.0, self.n / self.warm)
        s = self.share()
        return warm * (1.0 if s < 1 - self.fall else self.floor + (1 - self.floor) * max(0.0, (1 - s) / self.fall))

    def running(self):
        return self.left() > 0

    def due(self):
        """True every two minutes, once."""
        if time.time() - self.saved > SAVE_EVERY:
            self.saved = time.time()
            return True
        return False


def parser(minutes, tier=132, workers=6, every=50):
    """A parser with what every trainer takes; a trainer adds its own."""
    p = argparse.ArgumentParser()
    p.add_argument("--pack", required=True, help="folder made by pack.py")
    p.add_argument("--out", required=True, help="checkpoints and logs")
    p.add_argument("--minutes", type=float, default=minutes, help="of the whole leg")
    p.add_argument("--resume", action="store_true")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--tier", type=int, default=tier, help="actors: the first 48, 96 or 132")
    p.add_argument("--steps", type=int, default=0, help="stop after so many; 0: by the clock alone")
    p.add_argument("--every", type=int, default=every, help="steps between two lines of the log")
    p.add_argument("--workers", type=int, default=workers, help="processes that draw stories")
    p.add_argument("--variants", type=int, default=6, help="of each drawn place")
    p.add_argument("--plain", action="store_true", help="compile nothing")
    return p


def save(path, value):
    """Atomic: a leg may be cut at any moment."""
    torch.save(value, path + ".part")
    os.replace(path + ".part", path)


class Log:
    """Lines of JSON in a file and short lines on the screen."""

    def __init__(self, path):
        self.f, self.begun = open(path, "a"), time.time()

    def __call__(self, **row):
        row = {"s": round(time.time() - self.begun, 1), **{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}}
        self.f.write(json.dumps(row) + "\n")
        self.f.flush()
        print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
