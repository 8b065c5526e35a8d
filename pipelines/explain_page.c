/* index.html beside the heat maps: the text, and under each word its picture or clip and how much of the word's attention was on pictures.
 * A browser shows them all at once; no script, nothing from elsewhere.
 *
 * Surprise: the text is a model's and paths are a user's, so both are escaped; names of overlays are letters and digits by their making. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pipelines/explain.h"

static const char head[] =
    "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>genvid explain</title>\n<style>\n"
    "body { font: 16px/1.5 sans-serif; margin: 2em; background: #181818; color: #ddd }\n"
    "h1 { font-size: 1.4em; font-weight: normal }\n"
    ".bar { height: 6px; width: 200px; background: linear-gradient(90deg, #440154, #2c718e, #27ad81, #fde725) }\n"
    "main { display: flex; flex-wrap: wrap; gap: 1.5em }\n"
    "figure { margin: 0; width: 20em }\n"
    "img, video { width: 100%; display: block }\n"
    "small { color: #999 }\n"
    "</style></head><body>\n";

static void put_text(FILE *f, const char *text)
{
    for (; text && *text; text++)
        switch (*text) {
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '&': fputs("&amp;", f); break;
        case '"': fputs("&quot;", f); break;
        default: putc(*text, f);
        }
}

static const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void put_place(FILE *f, const json_t *place)
{
    const char  *name = text_of(place, "overlay");
    const size_t n = name ? strlen(name) : 0;
    if (n > 4 && !strcmp(name + n - 4, ".mp4"))
        fprintf(f, "<video src=\"%s\" autoplay loop muted playsinline></video>", name);
    else if (n)
        fprintf(f, "<img src=\"%s\" alt=\"\">", name);
}

static void put_word(FILE *f, const json_t *word)
{
    json_t *places = json_object_get(word, "places"), *place;
    size_t  i;
    fputs("<figure>", f);
    json_array_foreach (places, i, place)
        put_place(f, place);
    fputs("<figcaption>", f);
    put_text(f, text_of(word, "word"));
    fprintf(f, " <small>%.0f%% on the picture</small></figcaption></figure>\n",
            100 * json_number_value(json_object_get(word, "picture_share")));
}

gv_status gv_explain_page(const json_t *explained, const char *path, struct error *e)
{
    json_t *word, *media;
    size_t  i;
    FILE   *f = fopen(path, "w");
    if (!f)
        return gv_fail(e, GV_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    fputs(head, f);
    fputs("<h1>", f);
    put_text(f, text_of(explained, "text"));
    fputs("</h1>\n<p><small>", f);
    json_array_foreach (json_object_get(explained, "media"), i, media) {
        fputs(i ? ", " : "", f);
        put_text(f, text_of(media, "path"));
    }
    fputs("; brighter: read more, beside the word's own brightest place</small></p>\n<div class=\"bar\"></div>\n<main>\n", f);
    json_array_foreach (json_object_get(explained, "words"), i, word)
        put_word(f, word);
    fputs("</main></body></html>\n", f);
    const bool broken = ferror(f) != 0;
    if (fclose(f) != 0 || broken)
        return gv_fail(e, GV_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    return GV_OK;
}
