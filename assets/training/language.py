"""Captions: from the labels of a clip to the many ways people would ask for it.

Why templates: labels are free and exact, so the words can be too. Slots are dropped and moved at random, so short prompts work; fillers and
whole foreign clauses are mixed in, so that unknown words are ignored instead of breaking the clip.
canonical() is the one fixed wording, used by the evaluation and, later, as the captioner's target.

A label record (dict): actors [(actor index, colour index)], motion, scene, camera, weather, time, style, speed: indices into words.py's lists;
speed is -1 slowly, 0 unsaid, 1 fast. Only the first actor moves; a second one stands by. own, where there is one: the colour that an unpainted first actor
has by nature, which may be said of it.
"""
import words as w

FOREIGN = ("my grandmother likes it", "as seen on holiday", "with a strange feeling", "for a birthday card", "in memory of an old friend", "number seven")


def article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def subject(actor, colour, rng, plain=False):
    a = w.ACTORS[actor]
    name = a.name if plain or rng.random() < 0.7 else a.names[rng.integers(len(a.names))]
    if colour:
        name = w.COLOURS[colour] + " " + name
    if plain:
        return article(name)
    if rng.random() < 0.12:
        name = w.ADJECTIVES[rng.integers(len(w.ADJECTIVES))] + " " + name
    u = rng.random()
    return article(name) if u < 0.8 else "the " + name if u < 0.9 else name


def pick(options, rng):
    return options[rng.integers(len(options))]


def predicate(actor, motion, speed, rng, plain=False):
    """The verb phrase, e.g. "drives to the left"."""
    way, motion = w.ACTORS[actor].way, w.MOTIONS[motion]
    ing = not plain and rng.random() < 0.45
    if motion == "stand":
        verb = w.STILL[way][0][0] if plain else pick(w.STILL[way], rng)[ing]
        return verb if not ing or verb.startswith("is ") else pick(("is " + verb, verb), rng)
    if motion in w.ALONE and (motion not in w.HOW or (not plain and rng.random() < 0.4)):
        verb = w.ALONE[motion][0][0] if plain else pick(w.ALONE[motion], rng)[ing]
    else:
        verb = (w.VERBS[way][0] if plain else pick(w.VERBS[way], rng))[ing]
        verb += " " + (w.HOW[motion][0] if plain else pick(w.HOW[motion], rng))
    if speed and not plain:
        verb += " slowly" if speed < 0 else pick((" fast", " quickly"), rng)
    return pick(("is " + verb, verb), rng) if ing else verb


def canonical(label):
    """One fixed wording: "A red car drives to the left in the city at sunset. It is raining. The camera pans right." """
    a, c = label["actors"][0]
    s = subject(a, c, None, True) + " " + predicate(a, label["motion"], 0, None, True) + " " + w.SCENES[label["scene"]].said[0]
    if label["time"]:
        s += " " + w.TIME_SAID[w.TIMES[label["time"]]][0]
    if len(label["actors"]) > 1:
        s += " next to " + subject(*label["actors"][1], None, True)
    parts = [s]
    if label["weather"]:
        parts.append(w.WEATHER_SAID[w.WEATHERS[label["weather"]]][0])
    if label["camera"]:
        parts.append(w.CAMERA_SAID[w.CAMERAS[label["camera"]]][0])
    if label["style"]:
        parts.append(w.STYLE_SAID["cartoon"][0])
    return " ".join(p[0].upper() + p[1:] + "." for p in parts)


def caption(label, rng):
    """A random wording. rng: numpy Generator. Some labels stay unsaid; the first actor is always named."""
    if rng.random() < 0.15:
        return canonical(label)
    a, c = label["actors"][0]
    who, does = subject(a, c or label.get("own", 0), rng), predicate(a, label["motion"], label["speed"], rng)
    if len(label["actors"]) > 1 and rng.random() < 0.9:
        who += pick((" and ", " with ", " next to ", " beside "), rng) + subject(*label["actors"][1], rng)
    where = pick(w.SCENES[label["scene"]].said, rng) if rng.random() < 0.93 else ""
    when = pick(w.TIME_SAID[w.TIMES[label["time"]]], rng) if rng.random() < (0.9 if label["time"] else 0.05) else ""
    said_motion = rng.random() < (0.95 if label["motion"] else 0.6)
    tail = []
    if label["weather"] and rng.random() < 0.92:
        tail.append(pick(w.WEATHER_SAID[w.WEATHERS[label["weather"]]], rng))
    if label["camera"] and rng.random() < 0.9:
        tail.append(pick(w.CAMERA_SAID[w.CAMERAS[label["camera"]]], rng))
    elif rng.random() < 0.05:
        tail.append(pick(w.CAMERA_SAID["static"], rng))
    if label["style"] and rng.random() < 0.95:
        tail.append(pick(w.STYLE_SAID["cartoon"], rng))
    elif rng.random() < 0.03:
        tail.append(pick(w.STYLE_SAID["3d"], rng))
    core = [who, does if said_motion else "", where, when]
    if rng.random() < 0.15 and where:
        core = [where + ",", who, does if said_motion else "", when]
    text = " ".join(x for x in core if x)
    if rng.random() < 0.2:
        text = pick(w.OPENERS, rng) + " " + text
    if rng.random() < 0.06:
        tail.append(pick(FOREIGN, rng))
    for _ in range(int(rng.random() < 0.12) * rng.integers(1, 3)):
        tail.append(pick(w.FILLERS, rng))
    order = rng.permutation(len(tail))
    sep = pick((", ", ". ", ", "), rng)
    return sep.join([text] + [tail[i] for i in order])
