"""Decides what happens in a clip: who, where, how it moves, what the camera does, and the numbers the renderer needs.

A story is drawn from a numpy Generator seeded with (purpose, seed, index): training, probe and evaluation use different purposes, so no clip that
judges was ever trained on. Pairs (actor, scene) and (actor, motion) for which held_out() is true are never drawn in training: 10 % of each.

Units: the camera stands at the origin 1.5 above the ground, y up, z forward, x right; angles in radians; one clip is T frames at 12 per second.
Record of one clip (all float32, K = 2 actor slots, the far one first):
    cam   [T, 4]     yaw, pitch, tan of half the horizontal field of view, brightness
    act   [K, T, 8]  x, y (middle), z, height, width factor (negative: mirrored), roll, image index, opacity
    col   [K, 12]    colour matrix 3x3 and offset, applied to the sprite
    env   [8]        panorama index, its yaw, its mirror (+1, -1), gain, wave strength, wave everywhere (0, 1), fog 0..1, shadow 0..1
    tint  [3]        colour of the light
    fall  [8]        particle texture (-1 none), x speed, y speed, scale, opacity, sway, phase x, phase y
"""
import colorsys
import math

import numpy as np

import words as w

H = 1.5                                          # camera above the ground
PURPOSES = {"train": 1, "probe": 2, "eval": 3, "vae": 4, "vae-eval": 5, "latent-stats": 6, "sheet": 7}
HUES = {"red": 0.0, "orange": 30.0, "yellow": 52.0, "green": 120.0, "blue": 215.0, "purple": 275.0, "pink": 325.0}
GREY = 0.14                                      # mean chroma under which a sprite has no colour of its own
LUMA = {"red": 0.36, "orange": 0.52, "yellow": 0.70, "green": 0.45, "blue": 0.38, "purple": 0.38, "pink": 0.60}


def held_out(actor, scene=None, motion=None):
    """True for the pairs kept from training. A fixed rule and no list, so that every script agrees."""
    return (scene is not None and (actor * 7 + scene * 11) % 10 == 3) or (motion is not None and motion > 0 and (actor * 3 + motion * 7) % 10 == 5)


def same_hue(colour, base):
    """True where painting a sprite of this base in that colour would leave it as it is."""
    hue = HUES.get(w.COLOURS[colour])
    return hue is not None and base[2] >= GREY and abs((hue - base[0] + 180) % 360 - 180) < 15


def colour_matrix(colour, base):
    """colour: index into COLOURS. base: (hue in degrees, luma 0..1, chroma 0..1) of the sprite. Returns 12 numbers: matrix rows, then offset.
    The hue is turned in YIQ, where turning is linear; black and white drop the chroma and squeeze the luma. A grey sprite has no hue to turn: it is tinted."""
    name = w.COLOURS[colour]
    to = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    back = np.linalg.inv(to)
    if name == "natural":
        m, off = np.eye(3), 0.0
    elif name in ("black", "white"):
        lo, hi = (0.03, 0.30) if name == "black" else (0.62, 0.42)
        m, off = back @ np.diag([hi, 0.05, 0.05]) @ to, lo
    else:
        turn = math.radians(HUES[name] - base[0])
        # in the I-Q plane red lies at about 21 degrees and hue runs the other way round than in HSV
        c, s = math.cos(-turn), math.sin(-turn)
        gain = min(1.9, max(0.65, LUMA[name] / max(base[1], 0.05)))
        if base[2] < GREY:
            rgb = np.array(colorsys.hsv_to_rgb(HUES[name] / 360, 0.75, 1.0))
            return np.concatenate([(np.outer(rgb / (to[0] @ rgb), to[0]) * gain).reshape(-1), np.zeros(3)]).astype(np.float32)
        m, off = back @ np.array([[gain, 0, 0], [0, 1.15 * c, -1.15 * s], [0, 1.15 * s, 1.15 * c]]) @ to, 0.0
    return np.concatenate([m.reshape(-1), np.full(3, off)]).astype(np.float32)


class Teller:
    """Draws stories for one world. world: an object with .images (dict (actor, style) -> (first, count)), .actors, .base (per actor hue, luma and chroma), .panoramas
    (dict stem -> list of indices), .foot (per actor: empty share under it), .mosaics (list), .stills (list of image indices), .particles (dict name -> index)."""

    def __init__(self, world, frames, width, height, tier=132, held=False):
        self.world, self.T, self.aspect, self.tier, self.held = world, frames, height / width, tier, held
        self.actors = [a for a in world.actors if a < tier]        # those present in the pack
        self.drawn = self.actors + ([] if held else [a for a in self.actors if w.ACTORS[a].recolour])    # ten looks are more to learn than one: twice as often

    def tell(self, rng, want=None):
        """rng: numpy Generator. want: label fields to keep fixed (names as in language.py). Returns (record, label)."""
        want, T, rand = want or {}, self.T, rng.random
        label = self._label(rng, want)
        (actor, colour), motion = label["actors"][0], w.MOTIONS[label["motion"]]
        scene, way = w.SCENES[label["scene"]], w.ACTORS[actor].way
        time = np.linspace(0.0, 1.0, T)
        tan0 = math.tan(math.radians(rng.uniform(58, 82)) / 2)
        cam = self._camera(rng, w.CAMERAS[label["camera"]], tan0, time)
        act, col = np.zeros((2, T, 8), np.float32), np.zeros((2, 12), np.float32)
        act[:, :, 2], act[:, :, 3], act[:, :, 4] = 4.0, 1.0, 1.0
        slots = []
        for n, (who, hue) in enumerate(label["actors"]):
            path = self._path(rng, who, motion if n == 0 else "stand", label, time, tan0, n, len(label["actors"]))
            slots.append((path, colour_matrix(hue, self.world.base[who]), n))
        slots.sort(key=lambda s: -s[0][:, 2].mean())
        for k, (path, matrix, n) in enumerate(slots):
            act[k], col[k] = path, matrix
            if n == 0:
                label["slot"] = k
        env, tint, fall = self._light(rng, label, scene, cam, time, T)
        return {"cam": cam, "act": act, "col": col, "env": env, "tint": tint, "fall": fall}, label

    # -- labels ----------------------------------------------------------------------------------------------------------------
    def _label(self, rng, want):
        rand = rng.random
        for _ in range(100):
            actor = want["actor"] if "actor" in want else int(self.drawn[rng.integers(len(self.drawn))])
            a = w.ACTORS[actor]
            scene = want["scene"] if "scene" in want else int(rng.integers(len(w.SCENES)))
            if "scene" not in want and a.way in ("swim", "sail") and rand() < 0.6:
                scene = [s.name for s in w.SCENES].index(("sea", "underwater", "lake", "sea")[rng.integers(4)])
            allowed = w.ALLOWED[a.way]
            if "motion" in want:
                motion = want["motion"]
            elif rand() < 0.42:
                motion = w.MOTIONS.index(("left", "right")[rng.integers(2)])
            else:
                motion = w.MOTIONS.index(allowed[rng.integers(len(allowed))])
            if not self.held and "scene" not in want and "motion" not in want and held_out(actor, scene, motion):
                continue
            break
        colour = int(rng.integers(1, len(w.COLOURS))) if a.recolour and rand() < 0.7 else 0
        own = 0
        if colour and same_hue(colour, self.world.base[actor]):    # a racing car painted red is the racing car as it is: the words may say red, the label cannot
            own, colour = colour, 0
        colour = want.get("colour", colour)
        style = int(rand() < 0.1)
        actors = [(actor, colour)]
        if rand() < want.get("second", 0.15):
            other = int(self.actors[rng.integers(len(self.actors))])
            if other != actor and (self.held or not held_out(other, scene)):
                actors.append((other, 0))
        outside = w.SCENES[scene].name not in ("bedroom", "apartment", "studio", "mall", "ballroom", "laboratory", "lobby", "warehouse", "factory", "underwater", "space", "moon", "wall", "checkerboard", "bridge")
        u = rand()
        time = (1 if u < 0.08 else 2 if u < 0.16 else 0) if outside else 0
        camera = int(rng.integers(1, len(w.CAMERAS))) if rand() < 0.35 else 0
        weather = int(rng.integers(1, len(w.WEATHERS))) if rand() < 0.25 else 0
        label = {"actors": actors, "motion": motion, "scene": scene, "camera": camera, "weather": weather, "time": time, "style": style,
                 "speed": int(rng.integers(-1, 2)) if rand() < 0.3 else 0, "slot": 0, "own": own}
        for k in ("camera", "weather", "time", "style", "speed"):
            label[k] = want.get(k, label[k])
        return label

    # -- motion ----------------------------------------------------------------------------------------------------------------
    def _path(self, rng, who, motion, label, t, tan0, n, crowd):
        """One actor's way through the clip, [T, 8]. Sizes and places are chosen on the screen and then put into the world."""
        T, a, rand = self.T, w.ACTORS[who], rng.random
        scene = w.SCENES[label["scene"]].name
        long = min(1.0, T / 33) ** 0.6
        pace = {-1: 0.65, 0: 1.0, 1: 1.4}[label["speed"]]
        tan_v = tan0 * self.aspect
        tall = rng.uniform(0.42, 0.62) * min(1.0, 1.0 / self.aspect) * (0.85 if crowd > 1 else 1.0)   # of the view's height
        on_ground = a.way in ("walk", "drive", "person", "sail") and scene not in ("space",)
        if a.way in ("thing", "face") and motion in ("stand", "jump", "spin", "grow", "shrink", "bounce", "closer", "away", "fall") and scene != "space":
            on_ground = rand() < 0.7
        feet = rng.uniform(0.24, 0.38)                            # below the middle, of the view's height
        z = H / (feet * 2 * tan_v) if on_ground else rng.uniform(3.0, 6.0)
        size = tall * 2 * tan_v * z
        y = -H + size / 2 if on_ground else rng.uniform(-0.08, 0.14) * 2 * tan_v * z
        half = tan0 * z                                            # half the screen's width at that distance
        x0 = rng.uniform(-0.2, 0.2) * half
        if crowd > 1:
            side = label.setdefault("_side", 1 if rand() < 0.5 else -1)
            x0 = (side if n == 0 else -side) * rng.uniform(0.36, 0.5) * half
        x, ys, zs, s, sx, roll = np.full(T, x0), np.full(T, y), np.full(T, z), np.full(T, size), np.ones(T), np.zeros(T)
        face = 1.0 if rand() < 0.5 else -1.0                      # +1: looks left, as the material does
        cycles = pace * T / 17
        u = t - 0.5
        if motion in ("left", "right"):
            sign = -1.0 if motion == "left" else 1.0
            travel = min(1.5, rng.uniform(0.75, 1.05) * pace * (0.75 + 0.45 * long)) * half
            mid = rng.uniform(-0.12, 0.12) * half if crowd == 1 else x0 * 0.3
            x, face = mid + sign * travel * u, -sign
        elif motion in ("up", "down"):
            span = rng.uniform(0.5, 0.75) * pace * (0.7 + 0.4 * long) * tan_v * z * 1.2
            ys = ys + (1 if motion == "up" else -1) * span * u
        elif motion in ("closer", "away"):
            k = 1 + rng.uniform(0.9, 1.4) * pace * (0.6 + 0.5 * long)
            zs = z * (k ** (1 - t) if motion == "closer" else k ** t) * 0.85
            x = x * zs / z
            if not on_ground:
                ys = ys * zs / z
        elif motion in ("jump", "bounce"):
            ys = ys + np.abs(np.sin(math.pi * (2.0 * cycles * t + rng.uniform(0, 1)))) * size * rng.uniform(0.35, 0.55)
        elif motion == "spin":
            angle = 2 * math.pi * (cycles * t * rng.uniform(0.9, 1.3) + rand())
            if a.way in w.SIDED:
                c = np.cos(angle)
                sx = np.where(np.abs(c) < 0.12, 0.12 * np.sign(c + 1e-9), c)
            else:
                roll = angle
        elif motion == "circle":
            angle = 2 * math.pi * (cycles * t * 0.9 + rand())
            r = rng.uniform(0.3, 0.42) * half
            x = np.cos(angle) * r
            if on_ground:
                zs = z * 1.15 + np.sin(angle) * r
            else:
                ys = ys + np.sin(angle) * r * self.aspect * 0.9
            sx = np.where(np.gradient(x) > 0, -1.0, 1.0) if a.way in w.SIDED else sx
            face = 1.0
        elif motion == "zigzag":
            k = (1.5 * cycles * t + rand()) % 1.0
            x = (np.abs(2 * k - 1) * 2 - 1) * rng.uniform(0.35, 0.5) * half
            if not on_ground:
                ys = ys + u * 0.5 * tan_v * z
            sx = np.where(np.gradient(x) > 0, -1.0, 1.0) if a.way in w.SIDED else sx
            face = 1.0
        elif motion in ("grow", "shrink"):
            k = rng.uniform(1.9, 2.5)
            f = k ** (t - 0.75) if motion == "grow" else k ** (0.25 - t)
            s = s * f
            ys = -H + s / 2 if on_ground else ys
        elif motion == "fall":
            fall = np.clip(t * 1.25 * pace, 0, 1) ** 2
            ys = ys + (1 - fall) * tan_v * z * 1.5
        if a.way in ("fly", "swim") and motion in ("stand", "left", "right"):
            ys = ys + np.sin(2 * math.pi * (t * cycles + rand())) * size * 0.04
        if a.way == "sail" or (scene == "sea" and on_ground):
            ys, roll = ys + np.sin(2 * math.pi * (t * cycles * 0.6 + rand())) * size * 0.03, roll + np.sin(2 * math.pi * (t * cycles * 0.6 + rand())) * 0.05
        first, count = self.world.images[(who, label["style"] if (who, label["style"]) in self.world.images else 0)]
        frame = first + (np.arange(T) + rng.integers(count)) % count
        if count == 1:                                             # a drawn still: let it bob, or it would be a sticker
            beat = np.sin(2 * math.pi * (2.0 * T / 17 * t + rand()))
            s, ys = s * (1 + 0.05 * beat), ys + size * 0.025 * beat
        flip = (-face if a.code in w.LOOKS_RIGHT else face) if a.way in w.SIDED else 1.0
        if on_ground:
            ys = ys - self.world.foot[who] * s                     # the sprite's empty lower rim
        return np.stack([x, ys, zs, s, sx * flip, roll, frame, np.ones(T)], 1).astype(np.float32)

    # -- camera and light --------------------------------------------------------------------------------------------------------
    def _camera(self, rng, name, tan0, t):
        long = 0.6 + 0.4 * min(1.0, self.T / 33)
        turn, lift, u = rng.uniform(0.28, 0.42) * long, rng.uniform(0.2, 0.3) * long, t - 0.5
        pitch0 = rng.uniform(-0.04, 0.03)
        yaw, pitch, tan = np.zeros_like(t), np.full_like(t, pitch0), np.full_like(t, tan0)
        if name in ("pan left", "pan right"):
            yaw = u * (turn if name == "pan right" else -turn)
        elif name in ("tilt up", "tilt down"):
            pitch = pitch + u * (lift if name == "tilt up" else -lift)
        elif name in ("zoom in", "zoom out"):
            k = rng.uniform(1.7, 2.1) ** long
            tan = tan0 * (k ** (0.6 - t) if name == "zoom in" else k ** (t - 0.4))
        elif name == "shake":
            for v, s in ((yaw, 0.014), (pitch, 0.012)):
                v += s * (np.sin(t * self.T * rng.uniform(0.9, 1.3) + rng.uniform(0, 6)) + np.sin(t * self.T * rng.uniform(1.6, 2.3) + rng.uniform(0, 6)))
        return np.stack([yaw, pitch, tan, np.ones_like(t)], 1).astype(np.float32)

    def _light(self, rng, label, scene, cam, t, T):
        rand = rng.random
        stems = scene.panoramas
        choices = self.world.panoramas[stems[rng.integers(len(stems))]]
        pano = choices[rng.integers(len(choices))]
        gain, tint = float(np.exp(rng.uniform(-0.18, 0.18))), np.exp(rng.uniform(-0.05, 0.05, 3))
        time, weather = w.TIMES[label["time"]], w.WEATHERS[label["weather"]]
        if time == "sunset":
            gain, tint = gain * 0.85, tint * np.array([1.22, 0.86, 0.62])
        elif time == "night":
            gain, tint = gain * 0.42, tint * np.array([0.72, 0.85, 1.25])
        wave = {"sea": 0.012, "underwater": 0.012, "lake": 0.006}.get(scene.name, 0.0)
        fall, fog = np.array([-1, 0, 0, 1, 0, 0, rand(), rand()], np.float32), 0.0
        if weather == "fog":
            fog = rng.uniform(0.5, 0.75)
        elif weather == "lightning":
            gain *= 0.55
            for _ in range(2):
                at = rng.integers(1, T)
                cam[at:at + 2, 3] *= 2.1
        elif weather != "none":
            vx, vy, scale, opacity, sway = {"rain": (-0.04, 0.34, 1.0, 0.75, 0.0), "snow": (-0.015, 0.06, 1.0, 0.95, 0.03), "leaves": (-0.03, 0.055, 1.0, 1.0, 0.05),
                                            "bubbles": (0.0, -0.05, 1.0, 0.9, 0.03), "confetti": (0.0, 0.08, 1.0, 1.0, 0.03)}[weather]
            fall[:6] = self.world.particles[weather], vx, vy, scale * rng.uniform(0.9, 1.2), opacity, sway
        floor = 0.0 if scene.name in ("sea", "space", "lake", "underwater") else rng.uniform(0.4, 0.7)
        env = np.array([pano, rng.uniform(0, 2 * math.pi), 1.0 if rand() < 0.5 else -1.0, gain, wave, float(scene.name == "underwater"), fog, floor], np.float32)
        return env, tint.astype(np.float32), fall


class Jumble(Teller):
    """Stories for the VAE alone: any picture anywhere, wide and narrow lenses, strong colours. Breadth, not sense. No label is used."""

    def tell(self, rng, want=None):
        record, label = super().tell(rng, want)
        rand, world = rng.random, self.world
        if rand() < 0.6:                                            # another picture in each slot
            for k in range(2):
                if rand() < 0.7:
                    record["act"][k, :, 6] = world.stills[rng.integers(len(world.stills))]
                    record["act"][k, :, 7] = 1.0
                    record["col"][k] = colour_matrix(0, (0.0, 0.5))
                    record["act"][k, :, 3] *= rng.uniform(0.4, 2.0)
                    record["act"][k, :, 0] += rng.uniform(-1, 1)
        if rand() < 0.35 and world.mosaics:
            record["env"][0] = world.mosaics[rng.integers(len(world.mosaics))]
        record["cam"][:, 2] *= np.float32(np.exp(rng.uniform(-0.5, 0.9)))
        record["cam"][:, 1] += np.float32(rng.uniform(-0.5, 0.5))
        record["env"][3] *= np.float32(np.exp(rng.uniform(-0.5, 0.4)))
        record["tint"] *= np.exp(rng.uniform(-0.25, 0.25, 3)).astype(np.float32)
        return record, label


def stack(records):
    """List of records -> dict of numpy arrays with a batch axis in front."""
    return {k: np.stack([r[k] for r in records]) for k in records[0]}


def seeded(purpose, seed, index):
    """The generator for one clip. Streams of different purposes never meet."""
    return np.random.default_rng([PURPOSES[purpose], seed, index])
