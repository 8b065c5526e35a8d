"""The vocabulary of the world: actors, scenes, colours, motions, cameras, weather, times, and the words people use for them.

Why tables and not files: every label the trainers, the probe and the evaluation use is an index into one of these lists, so
the lists are part of the model. Append only; never reorder, or a trained probe and a trained encoder lose their meaning.
The order of ACTORS is the order of the tiers: the first 48, the first 96 and all 132 are the three sizes of world trained on.

Surprises: an actor's "way" decides both where it may stand (ground, air, water) and which verb moves it. A side view looks to
the left in the material, so motion to the right mirrors the sprite. Faces and things have no sides and are never mirrored.
"""
from dataclasses import dataclass

# code point | name | synonyms and hyponyms | way | c = may be recoloured
_ACTORS = """
1f415|dog|puppy,doggy,corgi,poodle,hound|walk|
1f408|cat|kitten,kitty,tabby|walk|
1f40e|horse|pony,stallion,mare|walk|
1f404|cow|cattle,bull|walk|
1f418|elephant||walk|c
1f981|lion||walk|
1f405|tiger||walk|
1f43c|panda|panda bear|walk|
1f996|t-rex|tyrannosaurus,dinosaur,trex|walk|c
1f407|rabbit|bunny,hare|walk|
1f992|giraffe||walk|
1f993|zebra||walk|
1f427|penguin||walk|
1f986|duck|duckling,mallard|walk|
1f413|rooster|cock|walk|
1f989|owl||fly|
1f985|eagle|hawk,falcon|fly|
1f99c|parrot|macaw|fly|
1f422|turtle|tortoise|walk|c
1f438|frog|toad|walk|c
1f41f|fish|trout,salmon|swim|c
1f988|shark||swim|
1f42c|dolphin||swim|
1f40b|whale||swim|
1f419|octopus||swim|c
1f980|crab||walk|c
1f98b|butterfly||fly|c
1f577|spider||walk|
1f409|dragon||walk|c
1f984|unicorn||walk|
1f697|car|automobile,sedan|drive|c
1f695|taxi|cab|drive|
1f68c|bus|coach|drive|
1f692|fire truck|fire engine|drive|
1f682|steam train|train,locomotive|drive|
2708|airplane|plane,aircraft,jet|fly|
1f681|helicopter|chopper|fly|c
1f680|rocket|spaceship|fly|
1f6f8|ufo|flying saucer|fly|
26f5|sailboat|yacht,sailing boat|sail|
1f916|robot|android|person|c
1f47b|ghost|phantom|person|
26c4|snowman||person|
1f385|santa|santa claus,father christmas|person|
1f525|fire|flame,campfire|thing|c
2764|heart||thing|c
2b50|star||thing|c
1f600|grinning face|smiley,smiling face|face|
1f416|pig|hog,piglet|walk|
1f411|sheep|lamb|walk|
1f410|goat||walk|
1f401|mouse|rat|walk|
1f412|monkey|ape|walk|
1f406|leopard|cheetah,jaguar|walk|
1f43b|bear|brown bear,grizzly|walk|
1f428|koala||walk|
1f998|kangaroo|wallaby|walk|
1f98a|fox||walk|
1f43a|wolf||walk|
1f98c|deer|stag|walk|
1f98f|rhinoceros|rhino|walk|
1f42a|camel|dromedary|walk|
1f994|hedgehog||walk|
1f99a|peacock||walk|
1f9a9|flamingo||walk|
1f426|bird|sparrow|fly|c
1f987|bat||fly|
1f40a|crocodile|alligator|walk|
1f40d|snake|serpent|walk|c
1f420|tropical fish||swim|
1f99e|lobster||walk|
1f40c|snail||walk|
1f41d|bee|honeybee|fly|
1f41e|ladybug|ladybird,beetle|walk|
1f995|long-neck dinosaur|sauropod|walk|c
1f69a|truck|lorry|drive|
1f693|police car||drive|
1f691|ambulance||drive|
1f69c|tractor||drive|
1f3ce|racing car|race car|drive|c
1f3cd|motorcycle|motorbike|drive|
1f6a2|ship|cruise ship|sail|
1f6a4|speedboat|motorboat|sail|
1f6b4|cyclist|bicycle,bike|person|
1f3c3|runner|jogger|person|
1f483|dancer|dancing woman|person|
1f3c4|surfer||person|
1f47d|alien|martian|person|
1f9f8|teddy bear|teddy|person|
1f9d9|wizard|mage|person|
2602|umbrella|parasol|thing|c
1f384|christmas tree||thing|
1f383|pumpkin|jack-o-lantern|thing|
26f2|fountain||thing|
1f602|laughing face||face|
1f60e|cool face|face with sunglasses|face|
1f99b|hippopotamus|hippo|walk|
1f9a6|otter||walk|
1f9a5|sloth||walk|
1f414|chicken|hen|walk|
1f9a2|swan||walk|
1f98e|lizard|gecko|walk|c
26f7|skier||person|
1f3ca|swimmer||person|
1f939|juggler||person|
1f938|acrobat|cartwheel|person|
1f9da|fairy||fly|
1f9dc|mermaid||person|
2744|snowflake||thing|
23f0|alarm clock|clock|thing|c
23f3|hourglass||thing|
1f382|birthday cake|cake|thing|
1f52e|crystal ball||thing|
1f4a3|bomb||thing|
1f3a1|ferris wheel||thing|
1f389|party popper||thing|
2615|hot drink|coffee,cup of coffee,tea|thing|
1fa90|planet|saturn|thing|c
2600|sun||thing|
2601|cloud||thing|
1f327|rain cloud||thing|
1f329|thunder cloud|storm cloud|thing|
1f308|rainbow||thing|
1f31d|moon face|moon|face|
1f31e|sun face|smiling sun|face|
1f62d|crying face||face|
1f620|angry face||face|
1f634|sleeping face||face|
1f60d|face in love||face|
1f609|winking face||face|
1f632|surprised face||face|
1f921|clown|clown face|face|
"""


@dataclass(frozen=True)
class Actor:
    code: str        # file name in the pack
    name: str
    names: tuple     # name first, then synonyms
    way: str         # walk, fly, swim, drive, sail, person, thing, face
    recolour: bool


def _actor(line):
    code, name, more, way, c = line.split("|")
    return Actor(code, name, (name, *[m for m in more.split(",") if m]), way, c == "c")


ACTORS = [_actor(l) for l in _ACTORS.strip().splitlines()]
TIERS = (48, 96, 132)

# name | how it is said | panoramas (file stems), or the name of a procedural one | water: where fish and ships feel at home
_SCENES = """
city|in the city,on a city street,downtown,in town|bl_city,ph_city
courtyard|in a courtyard,in the yard|bl_courtyard
forest|in the forest,in the woods,between trees|bl_forest,ph_forest
bedroom|in a bedroom,in a hotel room|bl_interior
field|in a field,in a dry field,on the savanna|bl_night,ph_night
studio|in a studio,in a photo studio|bl_studio,ph_studio
meadow|in a meadow,on a sunny meadow|bl_sunrise,ph_sunrise
park|in the park,on the grass,on a lawn|ph_park
harbor|at the harbor,by the water,at the waterfront|bl_sunset,ph_venice
square|on a square,on a plaza,in an old town|ph_sunset
apartment|in an apartment,in an empty room,at home|ph_apartment
bridge|on a bridge,in a glass tunnel|ph_bridge
mountains|in the mountains,among rocks,in rocky hills|ph_dawn
mall|in a shopping mall,in a mall|ph_esplanade
ballroom|in a ballroom,in a large hall|ph_hall
laboratory|in a laboratory,in a lab|ph_lab
lobby|in a lobby,in an office|ph_lobby
lake|over a calm lake,on a lake|ph_sky
warehouse|in a warehouse|ph_warehouse
factory|in a factory,in a workshop|ph_workshop
beach|on the beach,on a sandy beach,at the beach|beach
desert|in the desert,in sand dunes|desert
snow|in the snow,on a snowy field,in a winter landscape|snowfield
sea|on the sea,at sea,on the ocean|sea
underwater|under water,underwater,on the sea floor|underwater
moon|on the moon,on the surface of the moon|moonland
road|on a road,on a highway|road
space|in space,in outer space|space
hills|in green hills,on a hill|hills
wall|in front of a plain wall,on a plain background|wall
checkerboard|on a checkerboard,on a checkered floor|checker
"""


@dataclass(frozen=True)
class Scene:
    name: str
    said: tuple
    panoramas: tuple


SCENES = [Scene(n, tuple(s.split(",")), tuple(p.split(","))) for n, s, p in (l.split("|") for l in _SCENES.strip().splitlines())]
WATER_SCENES = {"sea", "underwater", "lake", "harbor"}

# index 0 means "as the material is"; nothing is said about it
COLOURS = ["natural", "red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white"]
MOTIONS = ["stand", "left", "right", "up", "down", "closer", "away", "jump", "bounce", "spin", "circle", "zigzag", "grow", "shrink", "fall"]
DIRECTIONS = ["none", "left", "right"]          # a read-out of MOTIONS for the probe
CAMERAS = ["static", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "shake"]
WEATHERS = ["none", "rain", "snow", "fog", "leaves", "bubbles", "confetti", "lightning"]
TIMES = ["day", "sunset", "night"]
STYLES = ["3d", "cartoon"]

GROUND = ("stand", "left", "right", "closer", "away", "jump", "circle", "zigzag", "spin")
AIR = ("stand", "left", "right", "up", "down", "closer", "away", "circle", "zigzag", "spin")
THING = ("stand", "left", "right", "up", "down", "closer", "away", "bounce", "spin", "circle", "grow", "shrink", "fall")
ALLOWED = {"walk": GROUND, "drive": ("stand", "left", "right", "closer", "away", "circle", "zigzag"), "person": GROUND,
           "sail": ("stand", "left", "right", "closer", "away"), "fly": AIR, "swim": AIR, "thing": THING, "face": THING}
SIDED = {"walk", "drive", "person", "sail", "fly", "swim"}   # sprites with a left and a right
LOOKS_RIGHT = {"2708", "1f680"}                               # airplane and rocket: the only ones drawn the other way round

# third person, then -ing
VERBS = {"walk": (("walks", "walking"), ("runs", "running"), ("moves", "moving"), ("goes", "going")),
         "person": (("walks", "walking"), ("runs", "running"), ("moves", "moving"), ("goes", "going")),
         "drive": (("drives", "driving"), ("rolls", "rolling"), ("moves", "moving"), ("goes", "going")),
         "sail": (("sails", "sailing"), ("moves", "moving"), ("floats", "floating"), ("goes", "going")),
         "fly": (("flies", "flying"), ("moves", "moving"), ("glides", "gliding")),
         "swim": (("swims", "swimming"), ("moves", "moving"), ("glides", "gliding")),
         "thing": (("moves", "moving"), ("floats", "floating"), ("slides", "sliding"), ("flies", "flying")),
         "face": (("moves", "moving"), ("floats", "floating"), ("slides", "sliding"), ("flies", "flying"))}
STILL = {"walk": (("stands", "standing"), ("waits", "waiting")), "person": (("stands", "standing"), ("waits", "waiting")),
         "drive": (("stands", "standing"), ("is parked", "parked")), "sail": (("floats", "floating"), ("rests", "resting")),
         "fly": (("hovers", "hovering"), ("floats", "floating")), "swim": (("floats", "floating"), ("hovers", "hovering")),
         "thing": (("stands", "standing"), ("stays", "staying")), "face": (("stays", "staying"), ("looks at us", "looking at us"))}
HOW = {"left": ("to the left", "left", "towards the left", "from right to left", "leftwards"),
       "right": ("to the right", "right", "towards the right", "from left to right", "rightwards"),
       "up": ("up", "upwards", "into the air"), "down": ("down", "downwards", "towards the ground"),
       "closer": ("closer", "towards the camera", "towards us", "nearer"), "away": ("away", "away from the camera", "into the distance"),
       "circle": ("in circles", "in a circle", "around"), "zigzag": ("in a zigzag", "in zigzags", "back and forth")}
ALONE = {"jump": (("jumps", "jumping"), ("hops", "hopping"), ("leaps", "leaping")), "bounce": (("bounces", "bouncing"), ("bounces up and down", "bouncing up and down")),
         "spin": (("spins", "spinning"), ("rotates", "rotating"), ("turns around", "turning around")),
         "grow": (("grows", "growing"), ("gets bigger", "getting bigger")), "shrink": (("shrinks", "shrinking"), ("gets smaller", "getting smaller")),
         "fall": (("falls", "falling"), ("falls down", "falling down"), ("drops", "dropping")), "up": (("rises", "rising"),), "down": (("sinks", "sinking"), ("descends", "descending")),
         "closer": (("approaches", "approaching"), ("comes closer", "coming closer")), "away": (("leaves", "leaving"), ("moves away", "moving away"))}
CAMERA_SAID = {"pan left": ("the camera pans left", "camera pans to the left", "panning left"), "pan right": ("the camera pans right", "camera pans to the right", "panning right"),
               "tilt up": ("the camera tilts up", "camera tilting up"), "tilt down": ("the camera tilts down", "camera tilting down"),
               "zoom in": ("the camera zooms in", "zoom in", "zooming in"), "zoom out": ("the camera zooms out", "zoom out", "zooming out"),
               "shake": ("handheld camera", "shaky camera"), "static": ("static camera", "the camera does not move")}
WEATHER_SAID = {"rain": ("it is raining", "in the rain", "rainy weather", "rain"), "snow": ("it is snowing", "snow is falling", "snowfall", "in falling snow"),
                "fog": ("in the fog", "foggy weather", "it is foggy", "mist"), "leaves": ("leaves are falling", "falling leaves", "autumn leaves"),
                "bubbles": ("bubbles are rising", "with bubbles", "soap bubbles"), "confetti": ("confetti is falling", "with confetti"),
                "lightning": ("lightning flashes", "in a thunderstorm", "with lightning")}
TIME_SAID = {"sunset": ("at sunset", "in the evening", "golden hour"), "night": ("at night", "in the dark", "by night"), "day": ("by day", "in daylight")}
STYLE_SAID = {"cartoon": ("cartoon style", "as a cartoon", "flat cartoon"), "3d": ("3d render", "3d animation")}
ADJECTIVES = ("cute", "small", "big", "little", "beautiful", "funny", "happy", "lovely", "nice", "young", "old", "realistic", "tiny", "huge")
FILLERS = ("cinematic", "4k", "8k", "highly detailed", "best quality", "masterpiece", "smooth motion", "high resolution", "photorealistic", "sharp focus", "soft light")
OPENERS = ("a video of", "a clip of", "footage of", "a short film of", "an animation of", "a shot of", "a movie of")


def vocabulary(tier=132):
    """The content words of the world with its first `tier` actors, sorted, without duplicates; what `genvid info --words` prints."""
    said = [n for a in ACTORS[:tier] for n in a.names] + [s for x in SCENES for s in (x.name, *x.said)] + COLOURS[1:]
    for t in (VERBS, STILL, ALONE):
        said += [w for pairs in t.values() for p in pairs for w in p]
    for t in (HOW, CAMERA_SAID, WEATHER_SAID, TIME_SAID, STYLE_SAID):
        said += [w for v in t.values() for w in v]
    stop = set("a an the in on at of by to from and with is it are does not us into as for between among around up down".split()) - {"up", "down"}
    return sorted({w for s in said for w in s.replace("-", "-").split()} - stop)


def function_words():
    """Words the captions use besides the content words; the tokenizer keeps them whole too."""
    said = list(ADJECTIVES) + list(FILLERS) + list(OPENERS) + ["a an the in on at of by to from and with is it are does not us into as next beside while there two one slowly fast quickly"]
    return sorted({w for s in said for w in s.split()})


_SYNONYMS = """
dog|pup,doggie,terrier,retriever,labrador,dachshund,beagle,husky,spaniel,bulldog,collie,canine,mutt,hund
cat|feline,kittens,tomcat,siamese
horse|foal,colt,steed,mustang
cow|calf,ox,buffalo,bison
pig|swine,boar
sheep|ram,ewe
mouse|rodent,hamster,gerbil
monkey|chimp,chimpanzee,baboon,gorilla,macaque
rabbit|bunnies
duck|drake,goose
rooster|cockerel
chicken|hen,poultry
bird|sparrow,robin,finch,songbird,canary,pigeon,dove,seagull,gull,crow,raven
eagle|vulture,condor,buzzard
parrot|cockatoo,budgie
turtle|terrapin
crocodile|caiman
snake|serpent,python,cobra,viper,adder
lizard|gecko,iguana,chameleon
frog|bullfrog
fish|goldfish,carp,tuna,cod,herring,perch
shark|hammerhead
dolphin|porpoise
whale|orca
octopus|squid
spider|tarantula
butterfly|moth
bee|wasp,bumblebee,hornet
dragon|wyvern,drake
t-rex|dino,raptor,velociraptor
unicorn|pegasus
lion|lioness
tiger|tigress
leopard|panther
wolf|coyote
deer|moose,elk,reindeer,doe
bear|cub
car|convertible,coupe,hatchback,vehicle,suv,limousine,roadster,minivan
taxi|taxicab
bus|minibus,omnibus
truck|lorry,van,pickup
motorcycle|motorbike,moped,scooter
bicycle|cycle
train|tram
airplane|aeroplane,airliner,biplane,jetliner
helicopter|copter
rocket|spacecraft,shuttle
ufo|spacecrafts
ship|steamer,liner,freighter,ferry,vessel,tanker
sailboat|catamaran,schooner
boat|canoe,rowboat,dinghy
robot|droid,automaton,cyborg
ghost|spirit,spectre
alien|extraterrestrial,martian
wizard|sorcerer,magician,mage
fairy|pixie,sprite
clown|jester
fire|blaze,bonfire
ball|sphere
cake|pie
car|automobiles
red|crimson,scarlet,ruby,maroon
orange|amber,tangerine
yellow|golden,gold,lemon
green|emerald,lime,olive
blue|azure,navy,cyan,turquoise,teal
purple|violet,lilac,magenta,lavender,indigo
pink|rose,fuchsia
black|ebony
white|ivory
forest|woods,woodland,jungle
park|garden
city|town,metropolis
street|avenue,lane
meadow|field,grassland,pasture,prairie
beach|seaside,shore,coast
sea|ocean
lake|pond
desert|dune
mountains|mountain,alps,peak
snow|blizzard
rain|rainfall,drizzle,downpour
fog|haze,smog
night|midnight,nighttime
sunset|dusk,twilight,sundown
bedroom|room
moon|lunar
space|galaxy,cosmos,universe
runs|sprints,dashes,races,gallops,trots
walks|strolls,wanders,strides,marches
drives|cruises,speeds
flies|soars
jumps|skips,bounds
spins|twirls,whirls,rotating
closer|nearer
smaller|tinier
"""


# said in prompts, in no caption, and not worth a note
CONNECTORS = "for among between around over under through near behind above below across that this its his her their very some who which where when then".split()


def small_words(tier=132):
    """Words of a prompt that need no note although they are not in vocabulary()."""
    return sorted({*function_words(), *CONNECTORS} - set(vocabulary(tier)))


def synonyms(tier=132):
    """Words that no caption uses -> the known word that `genvid` reads them as. Only targets that are words of the vocabulary."""
    known, small, out = set(vocabulary(tier)), set(small_words(tier)), {}
    for line in _SYNONYMS.strip().splitlines():
        to, said = line.split("|")
        for w in said.split(","):
            if to in known and w not in known and w not in small:
                out.setdefault(w, to)
    return out


_BARE = ("in front of ", "between ", "among ", "under ", "over ", "with ", "in ", "on ", "at ", "by ", "as ", "it is ", "is ", "the ", "an ", "a ")


def bare(said):
    """"in the city" -> "city": what is left when nothing before it is needed to know it; "under water" stays, as "water" alone is another place."""
    known, short = said, {"water", "sea", "dark", "air"}
    while any(known.startswith(b) for b in _BARE):
        known = known[max(len(b) for b in _BARE if known.startswith(b)):]
    return said if known in short else known


def slots(tier=132):
    """What can be asked of a clip, kind by kind: each value and the words for it, none twice (the first has them). "unsaid": what a caption means that says nothing of it.
    `genvid video --check` reads prompts and captions by this."""
    alone = lambda m: [f for pair in ALONE.get(m, ()) for f in pair]
    still = [bare(f) for pairs in STILL.values() for pair in pairs for f in pair]
    tables = [("actor", None, {a.name: a.names[1:] for a in ACTORS[:tier]}),
              ("colour", None, {c: () for c in COLOURS[1:]}),
              ("motion", None, {m: [*HOW.get(m, ()), *alone(m)] if m != "stand" else still for m in MOTIONS}),
              ("scene", None, {s.name: [bare(x) for x in s.said] for s in SCENES}),
              ("camera", "static", {c: [bare(x) for x in CAMERA_SAID[c]] for c in CAMERAS}),
              ("weather", None, {x: [bare(y) for y in WEATHER_SAID[x]] for x in WEATHERS[1:]}),
              ("time", "day", {t: [bare(x) for x in TIME_SAID[t]] for t in TIMES}),
              ("style", "3d", {x: [bare(y) for y in STYLE_SAID[x]] for x in STYLES})]
    out, taken = [], {name for _, _, values in tables for name in values}
    for slot, unsaid, values in tables:
        rows = {}
        for value, said in values.items():
            rows[value] = [x for x in dict.fromkeys(said) if x not in taken]
            taken.update(rows[value])
        out.append({"slot": slot, **({"unsaid": unsaid} if unsaid else {}), "values": rows})
    return out
