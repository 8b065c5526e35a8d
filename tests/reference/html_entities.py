"""Writes io/html_entities.h: the named character references of the HTML standard, from Python's html.entities, ordered by name.

    python3 html_entities.py > ../../io/html_entities.h
"""
import html.entities

# Python's upper case of these is longer than a letter; text_clean.c has them by hand. Checked here so that they stay all.
LONG = {"\u00df", "\ufb01", "\ufb02", "\ufb00", "\ufb03", "\ufb04", "fj", "\u0149"}


def literal(s):
    out = ""
    for b in s.encode():
        out += chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else "\\%03o" % b
    return '"' + out + '"'


def main():
    print("/* The named character references of HTML, ordered by name for bsearch. Made by tests/reference/html_entities.py from Python's")
    print(" * html.entities.html5; names without ';' are those the standard decodes without it. */")
    print("#ifndef GV_IO_HTML_ENTITIES_H\n#define GV_IO_HTML_ENTITIES_H\n")
    print("static const struct html_entity {\n    const char *name, *text;\n} html_entities[] = {")
    line = "   "
    for name, text in sorted(html.entities.html5.items(), key=lambda x: x[0].encode()):
        if name == name.lower() and name.endswith(";"):
            up = text.upper()
            assert len(up) == len(text) or text in LONG, (name, text, up)
        cell = " {" + literal(name) + ", " + literal(text) + "},"
        if len(line) + len(cell) > 128:
            print(line)
            line = "   "
        line += cell
    print(line)
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
