"""The probe: a small 3-D convolutional network that reads a clip back into labels. It judges; it is never a loss and never shipped.

Input [B, 3, 17, 128, 128] in -1..1, of which it sees every second frame. Separate heads for actor, colour, motion, direction, scene, camera, weather, time.
Trained on true renders of its own stream of seeds, heavily blurred, noised and recoloured, so that softness alone does not fool it. The feature before the
heads serves for distances between sets of clips.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

import words

HEADS = {"actor": (0, len(words.ACTORS)), "colour": (1, len(words.COLOURS)), "motion": (2, len(words.MOTIONS)), "direction": (3, 3), "scene": (4, len(words.SCENES)),
         "camera": (5, len(words.CAMERAS)), "weather": (6, len(words.WEATHERS)), "time": (7, len(words.TIMES))}     # name: (column of facts, classes)


class Unit(nn.Module):
    def __init__(self, a, b, stride=(1, 1, 1)):
        super().__init__()
        self.space = nn.Conv3d(a, b, (1, 3, 3), (1, *stride[1:]), (0, 1, 1), bias=False)
        self.time = nn.Conv3d(b, b, (3, 1, 1), (stride[0], 1, 1), (1, 0, 0), bias=False)
        self.n1, self.n2 = nn.BatchNorm3d(b), nn.BatchNorm3d(b)
        self.skip = nn.Conv3d(a, b, 1, stride, bias=False) if a != b or stride != (1, 1, 1) else nn.Identity()

    def forward(self, x):
        return F.relu(self.n2(self.time(F.relu(self.n1(self.space(x))))) + self.skip(x))


class Probe(nn.Module):
    def __init__(self, w=32):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, w, (1, 5, 5), (1, 2, 2), (0, 2, 2), bias=False), nn.BatchNorm3d(w), nn.ReLU())
        self.body = nn.Sequential(Unit(w, 2 * w, (1, 2, 2)), Unit(2 * w, 2 * w), Unit(2 * w, 4 * w, (1, 2, 2)), Unit(4 * w, 4 * w), Unit(4 * w, 8 * w, (1, 2, 2)), Unit(8 * w, 8 * w))
        # what is there does not care where; how it moves does: so the motion heads see a coarse grid in time and place, the others a pooled vector
        self.squeeze = nn.Conv3d(8 * w, 32, 1)
        self.where = nn.Linear(32 * 9 * 16, 256)
        self.out = nn.ModuleDict({k: nn.Linear(16 * w + 256, n) for k, (_, n) in HEADS.items()})

    def features(self, x):
        x = self.body(self.stem(x[:, :, ::2]))
        grid = F.adaptive_avg_pool3d(self.squeeze(x), (9, 4, 4)).flatten(1)
        return torch.cat([x.mean((2, 3, 4)), x.amax((2, 3, 4)), F.relu(self.where(grid))], 1)

    def forward(self, x):
        f = self.features(x)
        return {k: m(f) for k, m in self.out.items()}
