/* What can be counted in a text in one pass: integers only, so that the same comes out on every machine.
 *
 * gristmill/corpus/features.py says what each figure means and has the same in Python, which the tests compare with.
 * Texts are valid UTF-8. CLASSES holds 16 bits for each code point: a class below, and flags.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SYMBOL, LETTER, MARK, DIGIT, SPACE, PUNCTUATION, HAN, UNSPACED, CONTROL };
enum {
    CLASS = 15, SIMPLIFIED = 1 << 4, TRADITIONAL = 1 << 5, TERMINAL = 1 << 6, UPPER = 1 << 7, LOWER = 1 << 8,
    PREFIX = 1 << 9, SUFFIX = 1 << 10, QUOTE = 1 << 11, BEFORE_STOP = 1 << 12, SIGN = 1 << 13, ICON = 1 << 14,
    CURRENCY = 1 << 15
};

/* In the order of features.py's FEATURES. */
enum {
    CHARACTERS, LETTERS, DIGITS, SPACES, PUNCTUATIONS, SYMBOLS, CONTROLS, LATIN, HANS, UNSPACEDS, SIMPLIFIEDS, TRADITIONALS,
    WORDS, SPELLED_WORDS, SPELLED_CHARACTERS, ALPHABETIC_WORDS, LONGEST_WORD, FUNCTION_WORDS, STOP_WORDS, HAN_STOP_WORDS,
    HASHES, ELLIPSES, NEWLINES, LINES, BULLET_LINES, ELLIPSIS_LINES,
    PARAGRAPHS, REPEATED_PARAGRAPHS, REPEATED_PARAGRAPH_CHARACTERS,
    BLOCKS, REPEATED_BLOCKS, REPEATED_BLOCK_CHARACTERS,
    WRITTEN_LINES, ENDED_LINES, SHORT_LINES, REPEATED_LINE_CHARACTERS,
    TOP_2, TOP_3, TOP_4, REPEATED_5, REPEATED_6, REPEATED_7, REPEATED_8, REPEATED_9, REPEATED_10,
    C4_LINES, C4_SENTENCES, C4_LOREM_IPSUM, C4_BRACKETS, C4_SCRIPT_LINES, C4_POLICY_LINES,
    FEATURES
};

typedef struct {
    uint64_t hash;
    uint64_t run;   /* of the run of words that begins here, as long as was last asked for */
    int64_t before; /* characters in the words before */
    int64_t start, end;
    uint8_t spelled, alphabetic;
} Word;

typedef struct {
    uint64_t key;
    int32_t count; /* 0: nobody sits here */
    int32_t first;
} Slot;

typedef struct {
    int32_t place; /* where a run of words begins that stands in the text twice or more */
    int32_t seat;  /* its slot */
} Again;

typedef struct {
    uint32_t *points;
    uint16_t *classes;
    int64_t room;
    Word *words;
    int64_t word_room;
    Again *again;
    int64_t again_room;
    int64_t *ends; /* of the pieces that were taken off the end of a chunk, the last first */
    int64_t end_room;
    Slot *slots;
    int64_t slot_room; /* a power of two */
} Scratch;

static uint64_t mixed(uint64_t h) {
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93ULL;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93ULL;
    h ^= h >> 32;
    return h;
}

static uint64_t hash_points(const uint32_t *points, int64_t start, int64_t end) {
    uint64_t h = 0x9e3779b97f4a7c15ULL;
    for (int64_t i = start; i < end; i++) h = (h ^ points[i]) * 0x100000001b3ULL;
    return mixed(h);
}

/* Of a longer text the beginning is looked at, so that memory stays bounded. */
enum { EXAMINED_BYTES = 8 << 20 };

static int64_t examined(const uint8_t *data, int64_t bytes) {
    if (bytes <= EXAMINED_BYTES) return bytes;
    bytes = EXAMINED_BYTES;
    while ((data[bytes] & 0xc0) == 0x80) bytes--;
    return bytes;
}

static int reserve_text(Scratch *s, int64_t bytes) {
    if (bytes <= s->room) return 1;
    int64_t room = bytes * 3 / 2;
    uint32_t *points = realloc(s->points, (size_t)room * sizeof(uint32_t));
    if (points) s->points = points;
    uint16_t *classes = realloc(s->classes, (size_t)room * sizeof(uint16_t));
    if (classes) s->classes = classes;
    if (!points || !classes) return 0;
    s->room = room;
    return 1;
}

static int reserve_word(Scratch *s, int64_t n) {
    if (n < s->word_room) return 1;
    int64_t room = s->word_room ? 2 * s->word_room : 4096;
    Word *words = realloc(s->words, (size_t)room * sizeof(Word));
    if (!words) return 0;
    s->words = words;
    s->word_room = room;
    return 1;
}

static int reserve_slots(Scratch *s, int64_t elements) {
    int64_t wanted = 1024;
    while (wanted < 2 * elements + 2) wanted *= 2;
    if (wanted <= s->slot_room) return 1;
    free(s->slots);
    s->slots = malloc((size_t)wanted * sizeof(Slot));
    s->slot_room = s->slots ? wanted : 0;
    return s->slots != NULL;
}

static int reserve_again(Scratch *s, int64_t count) {
    if (count <= s->again_room) return 1;
    free(s->again);
    s->again = malloc((size_t)(2 * count) * sizeof(Again));
    s->again_room = s->again ? 2 * count : 0;
    return s->again != NULL;
}

static void release(Scratch *s) {
    free(s->points);
    free(s->classes);
    free(s->words);
    free(s->again);
    free(s->ends);
    free(s->slots);
}

/* Returns the slot of a key, a new one with count 0, which the caller raises. `mask` limits the set to what is needed. */
static Slot *slot_of(Scratch *s, uint64_t key, int64_t mask) {
    int64_t at = (int64_t)(key & (uint64_t)mask);
    while (s->slots[at].count && s->slots[at].key != key) at = (at + 1) & mask;
    Slot *slot = &s->slots[at];
    if (!slot->count) {
        slot->key = key;
        slot->first = -1;
    }
    return slot;
}

static int64_t empty_set(Scratch *s, int64_t elements) {
    int64_t size = 64;
    while (size < 2 * elements + 2) size *= 2;
    memset(s->slots, 0, (size_t)size * sizeof(Slot));
    return size - 1;
}

static int64_t decode(const uint8_t *data, int64_t bytes, uint32_t *points) {
    int64_t n = 0, i = 0;
    while (i < bytes) {
        while (i + 8 <= bytes) { /* eight at a time where they are ASCII */
            uint64_t eight;
            memcpy(&eight, data + i, 8);
            if (eight & 0x8080808080808080ULL) break;
            for (int j = 0; j < 8; j++) points[n + j] = data[i + j];
            n += 8;
            i += 8;
        }
        if (i >= bytes) break;
        uint32_t c = data[i];
        if (c < 0x80) { points[n++] = c; i += 1; }
        else if (c < 0xe0) { points[n++] = (c & 31) << 6 | (data[i + 1] & 63); i += 2; }
        else if (c < 0xf0) { points[n++] = (c & 15) << 12 | (data[i + 1] & 63) << 6 | (data[i + 2] & 63); i += 3; }
        else {
            points[n++] = (c & 7) << 18 | (data[i + 1] & 63) << 12 | (data[i + 2] & 63) << 6 | (data[i + 3] & 63);
            i += 4;
        }
    }
    return n;
}

/* --- words: the rules of spaCy's English tokenizer, but for emoticons and contractions without an apostrophe --------- */

static int is_alnum(uint16_t c) { c &= CLASS; return c == LETTER || c == DIGIT || c == MARK; }
static int is_alpha(uint16_t c) { c &= CLASS; return c == LETTER || c == MARK; }
static int is_digit(uint32_t c) { return c >= '0' && c <= '9'; }
static int is_apostrophe(uint32_t c) { return c == '\'' || c == 0x2019; }
static int is_alone(uint16_t c) { c &= CLASS; return c == HAN || c == UNSPACED; }
static int is_blank(uint16_t c) { c &= CLASS; return c == SPACE || c == CONTROL; }

static int same(const uint32_t *p, int64_t start, int64_t end, const char *text) {
    int64_t i = start;
    for (; *text && i < end; text++, i++)
        if (p[i] != (uint32_t)(unsigned char)*text) return 0;
    return !*text && i == end;
}

static const char *ABBREVIATIONS[] = {
    "Adm.", "Ak.", "Ala.", "Apr.", "Ariz.", "Ark.", "Aug.", "Bros.", "Calif.", "Co.", "Colo.", "Conn.", "Corp.", "D.C.",
    "Dec.", "Del.", "Dr.", "E.G.", "E.g.", "Feb.", "Fla.", "Ga.", "Gen.", "Gov.", "I.E.", "I.e.", "Ia.", "Id.", "Ill.",
    "Inc.", "Ind.", "Jan.", "Jr.", "Jul.", "Jun.", "Kan.", "Kans.", "Ky.", "La.", "Ltd.", "Mar.", "Mass.", "Md.", "Messrs.",
    "Mich.", "Minn.", "Miss.", "Mo.", "Mont.", "Mr.", "Mrs.", "Ms.", "Mt.", "N.C.", "N.D.", "N.H.", "N.J.", "N.M.", "N.Y.",
    "Neb.", "Nebr.", "Nev.", "Nov.", "Oct.", "Okla.", "Ore.", "Pa.", "Ph.D.", "Prof.", "Rep.", "Rev.", "S.C.", "Sen.",
    "Sep.", "Sept.", "St.", "Tenn.", "Va.", "Wash.", "Wis.", "a.m.", "co.", "e.g.", "i.e.", "p.m.", "v.s.", "vs.", "and/or",
};

/* Returns where a chunk that has a rule of its own is cut (its end: not at all), or -1 where it has none. */
static int64_t special(const uint32_t *p, const uint16_t *k, int64_t start, int64_t end) {
    int64_t length = end - start;
    if (length < 2 || length > 12) return -1;
    if (p[end - 1] == '.' || p[start] == 'a') {
        if (length == 2 && p[end - 1] == '.' && p[start] >= 'a' && p[start] <= 'z') return end;
        for (size_t i = 0; i < sizeof(ABBREVIATIONS) / sizeof(*ABBREVIATIONS); i++)
            if (p[start] == (uint32_t)ABBREVIATIONS[i][0] && same(p, start, end, ABBREVIATIONS[i])) return end;
    }
    if (same(p, start, end, "cannot") || same(p, start, end, "Cannot")) return start + 3;
    int64_t cut = -1;
    if (length > 3 && is_apostrophe(p[end - 2]) && (p[end - 1] | 32) == 't' && (p[end - 3] | 32) == 'n') cut = end - 3;
    else if (is_apostrophe(p[end - 2]) && ((p[end - 1] | 32) == 'd' || (p[end - 1] | 32) == 'm')) cut = end - 2;
    else if (length > 3 && is_apostrophe(p[end - 3])) {
        uint32_t a = p[end - 2] | 32, b = p[end - 1] | 32;
        if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) cut = end - 3;
    }
    for (int64_t i = start; i < cut; i++)
        if ((k[i] & CLASS) != LETTER) return -1;
    return cut > start ? cut : -1;
}

static int64_t prefix(const uint32_t *p, const uint16_t *k, int64_t start, int64_t end) {
    if (p[start] == '.') {
        int64_t i = start;
        while (i < end && p[i] == '.') i++;
        return i - start > 1 ? i - start : 0;
    }
    if (p[start] == '+') return !(start + 1 < end && is_digit(p[start + 1]));
    return (k[start] & PREFIX) != 0;
}

static const char *UNITS[] = {
    "km", "m", "dm", "cm", "mm", "ha", "nm", "yd", "in", "ft", "kg", "g", "mg", "t", "lb", "oz", "m/s", "km/h", "kmh", "mph",
    "hPa", "Pa", "mbar", "mb", "MB", "kb", "KB", "gb", "GB", "tb", "TB", "T", "G", "M", "K", "%",
};

static int64_t suffix(const uint32_t *p, const uint16_t *k, int64_t start, int64_t end) {
    uint32_t last = p[end - 1];
    int64_t length = end - start;
    if (last == '.') {
        int64_t i = end;
        while (i > start && p[i - 1] == '.') i--;
        if (end - i > 1) return end - i;
        if (length < 2) return 0;
        uint16_t before = k[end - 2];
        if (is_digit(p[end - 2]) || (before & (LOWER | BEFORE_STOP | QUOTE))) return 1;
        return length > 2 && (before & UPPER) && (k[end - 3] & UPPER);
    }
    if (k[end - 1] & SUFFIX) return 1;
    if ((last == 's' || last == 'S') && length > 1 && is_apostrophe(p[end - 2])) return 2;
    if (length > 1 && is_digit(p[end - 2]) && (last == '+' || (k[end - 1] & CURRENCY))) return 1;
    for (int64_t size = 4; size >= 1; size--) {
        if (size >= length || !is_digit(p[end - size - 1])) continue;
        for (size_t i = 0; i < sizeof(UNITS) / sizeof(*UNITS); i++)
            if (same(p, end - size, end, UNITS[i])) return size;
    }
    return 0;
}

/* Whether a chunk is an address: scheme://…, or names divided by stops, the last of two letters or more, then : or / */
static int is_address(const uint32_t *p, const uint16_t *k, int64_t start, int64_t end) {
    int64_t i = start, label = start, labels = 0, letters = 1;
    for (; i < end; i++) {
        if (p[i] == ':' && i + 2 < end && p[i + 1] == '/' && p[i + 2] == '/') return i > start + 1;
        if (p[i] == '@' && i > start && labels + letters > 0) {
            label = i + 1;
            labels = 0;
            letters = 1;
            continue;
        }
        if (p[i] == ':' || p[i] == '/') break;
        if (p[i] == '.') {
            if (i == label) return 0;
            label = i + 1;
            labels++;
            letters = 1;
        } else if (!is_alnum(k[i]) && p[i] != '-' && p[i] != '_') {
            return 0;
        } else if ((k[i] & CLASS) != LETTER) {
            letters = 0;
        }
    }
    return labels > 0 && letters && i - label >= 2;
}

static int is_hyphen(uint32_t c) { return c == '-' || c == 0x2013 || c == 0x2014 || c == '~'; }

/* The length of the sign at i that divides a chunk, or 0. */
static int64_t infix(const uint32_t *p, const uint16_t *k, int64_t start, int64_t i, int64_t end) {
    uint32_t c = p[i];
    if (c == '.') {
        int64_t j = i;
        while (j < end && p[j] == '.') j++;
        if (j - i > 1) return j - i;
        return i > start && i + 1 < end && (k[i - 1] & (LOWER | QUOTE)) && (k[i + 1] & (UPPER | QUOTE));
    }
    if (c == 0x2026 || (k[i] & ICON)) return 1;
    if (i == start || i + 1 >= end) return 0;
    if ((c == '+' || c == '-' || c == '*' || c == '^') && is_digit(p[i - 1]) && (is_digit(p[i + 1]) || p[i + 1] == '-')) return 1;
    if (c == ',') return is_alpha(k[i - 1]) && is_alpha(k[i + 1]);
    if (is_hyphen(c) && is_alnum(k[i - 1])) {
        int64_t j = i + 1;
        while (j < end && j < i + (c == '-' ? 3 : c == 0x2014 ? 2 : 1) && p[j] == c) j++;
        return j < end && is_alpha(k[j]) ? j - i : 0;
    }
    if (c == ':' || c == '<' || c == '>' || c == '=' || c == '/') return is_alnum(k[i - 1]) && is_alpha(k[i + 1]);
    return 0;
}

/* Returns the number of words then, -1 where memory ran out. */
static int64_t add_word(Scratch *s, int64_t n, int64_t start, int64_t end) {
    if (n < 0 || !reserve_word(s, n)) return -1;
    int spelled = 0, alphabetic = 0;
    for (int64_t i = start; i < end; i++) {
        int kind = s->classes[i] & CLASS;
        spelled |= !(s->classes[i] & SIGN);
        alphabetic |= kind == LETTER || kind == HAN || kind == UNSPACED;
    }
    uint64_t hash = hash_points(s->points, start, end);
    int64_t before = n ? s->words[n - 1].before + s->words[n - 1].end - s->words[n - 1].start : 0;
    s->words[n] = (Word){hash, hash, before, start, end, (uint8_t)spelled, (uint8_t)alphabetic};
    return n + 1;
}

/* The words of a chunk: what stands between white space, or between Chinese characters. */
static int64_t add_chunk(Scratch *s, int64_t n, int64_t start, int64_t end) {
    const uint32_t *p = s->points;
    const uint16_t *k = s->classes;
    int plain = 1;
    for (int64_t i = start; i < end && plain; i++) plain = (k[i] & CLASS) == LETTER;
    if (plain && (end - start != 6 || special(p, k, start, end) < 0)) return add_word(s, n, start, end); /* cannot */
    int64_t ends = 0, cut;
    while (start < end && (cut = special(p, k, start, end)) < 0) {
        int64_t before = prefix(p, k, start, end);
        if (before && start + before < end && special(p, k, start + before, end) >= 0) {
            n = add_word(s, n, start, start + before);
            start += before;
            continue;
        }
        int64_t after = start + before < end ? suffix(p, k, start + before, end) : 0;
        if (!before && !after) break;
        if (after) {
            if (ends >= s->end_room) {
                int64_t room = s->end_room ? 2 * s->end_room : 256;
                int64_t *grown = realloc(s->ends, (size_t)room * sizeof(int64_t));
                if (!grown) return -1;
                s->ends = grown;
                s->end_room = room;
            }
            s->ends[ends++] = end;
            if (special(p, k, start, end - after) >= 0) before = 0;
            end -= after;
        }
        if (before) {
            n = add_word(s, n, start, start + before);
            start += before;
        }
    }
    if (start < end) {
        cut = special(p, k, start, end);
        if (cut >= 0) {
            n = add_word(s, n, start, cut);
            if (cut < end) n = add_word(s, n, cut, end);
        } else if (is_address(p, k, start, end)) {
            n = add_word(s, n, start, end);
        } else {
            int64_t from = start;
            for (int64_t i = start; i < end;) {
                int64_t sign = infix(p, k, start, i, end);
                if (sign && i > start) {
                    if (i > from) n = add_word(s, n, from, i);
                    n = add_word(s, n, i, i + sign);
                    from = i + sign;
                }
                i += sign ? sign : 1;
            }
            if (from < end) n = add_word(s, n, from, end);
        }
    }
    while (ends-- > 0) {
        n = add_word(s, n, end, s->ends[ends]);
        end = s->ends[ends];
    }
    return n;
}

static int64_t find_words(Scratch *s, int64_t length) {
    const uint16_t *k = s->classes;
    int64_t n = 0, i = 0;
    while (i < length && n >= 0) {
        if (is_blank(k[i])) {
            i++;
        } else if (is_alone(k[i])) {
            n = add_word(s, n, i, i + 1);
            i++;
        } else {
            int64_t start = i;
            while (i < length && !is_blank(k[i]) && !is_alone(k[i])) i++;
            n = add_chunk(s, n, start, i);
        }
    }
    return n;
}

/* --- repetition ---------------------------------------------------------------------------------------------------- */

/* The hash of a line or paragraph, two characters at a time. */
static uint64_t hash_piece(const uint32_t *points, int64_t start, int64_t end) {
    uint64_t h = 0x9e3779b97f4a7c15ULL + (uint64_t)(end - start), two;
    int64_t i = start;
    for (; i + 2 <= end; i += 2) {
        memcpy(&two, points + i, 8);
        h = (h ^ two) * 0xd6e8feb86659fd93ULL;
        h ^= h >> 32;
    }
    if (i < end) h = (h ^ points[i]) * 0xd6e8feb86659fd93ULL;
    return mixed(h);
}

/* Notes a piece of text and returns whether it stood there before. */
static int seen_before(Scratch *s, int64_t mask, uint64_t hash) { return slot_of(s, hash, mask)->count++ > 0; }

static int64_t characters_of(const Word *words, int64_t i, int n) {
    return words[i + n - 1].before + words[i + n - 1].end - words[i + n - 1].start - words[i].before;
}

/* What is repeated, by runs of 2 to 10 words. A run that stands in a text twice begins with a shorter one that does, so
 * each length looks at the places only that the one before has left: `again`. Returns 0 where memory ran out. */
static int count_runs(Scratch *s, int64_t count, int64_t *out) {
    if (!reserve_again(s, count)) return 0;
    enum { AHEAD = 8, SEEN = -2 };
    Word *words = s->words;
    int64_t left = count;
    for (int64_t i = 0; i < count; i++) s->again[i].place = (int32_t)i;
    for (int n = 2; n <= 10 && n <= count; n++) {
        while (left && s->again[left - 1].place + n > count) left--;
        int64_t mask = empty_set(s, left), best = 0, best_first = 0, found = 0, total = 0, from = 0;
        for (int64_t j = 0; j < left; j++) {
            int64_t i = s->again[j].place;
            words[i].run = mixed(words[i].run * 31 + words[i + n - 1].hash);
        }
        for (int64_t j = 0; j < left; j++) {
            if (j + AHEAD < left) __builtin_prefetch(&s->slots[words[s->again[j + AHEAD].place].run & (uint64_t)mask], 1);
            int32_t i = s->again[j].place;
            Slot *slot = slot_of(s, words[i].run, mask);
            s->again[j].seat = (int32_t)(slot - s->slots);
            if (slot->first < 0) slot->first = i;
            slot->count++;
            if (slot->count > best || (slot->count == best && slot->first < best_first)) {
                best = slot->count;
                best_first = slot->first;
            }
        }
        /* the most frequent run, spaces in it counted, times how often it stands there; the first where none is twice */
        if (n <= 4) {
            if (best < 2) best = 1, best_first = 0;
            out[TOP_2 + n - 2] = best * (characters_of(words, best_first, n) + n - 1);
        }
        for (int64_t j = 0; best > 1 && j < left; j++) {
            Again one = s->again[j];
            Slot *slot = &s->slots[one.seat];
            if (slot->count < 2) continue;
            s->again[found++] = one;
            /* characters in runs that stood there before, none counted twice */
            if (n < 5 || one.place < from) continue;
            if (slot->first == SEEN) {
                total += characters_of(words, one.place, n);
                from = one.place + n;
            } else {
                slot->first = SEEN;
            }
        }
        left = found;
        if (n >= 5) out[REPEATED_5 + n - 5] = total;
    }
    return 1;
}

/* --- lines --------------------------------------------------------------------------------------------------------- */

static int starts(const uint32_t *p, int64_t left, const char *text) {
    for (int64_t i = 0; text[i]; i++)
        if (i >= left || p[i] >= 0x80 || (p[i] >= 'A' && p[i] <= 'Z' ? p[i] + 32 : p[i]) != (uint32_t)text[i]) return 0;
    return 1;
}

static const char *POLICIES[] = {"terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"};

static int is_ellipsis_end(const uint32_t *p, int64_t start, int64_t end) {
    if (end > start && p[end - 1] == 0x2026) return 1;
    return end - start >= 3 && p[end - 1] == '.' && p[end - 2] == '.' && p[end - 3] == '.';
}

/* Returns the end of a line without the citations at its end: [12], [], [edit], [citation needed]. */
static int64_t without_citations(const uint32_t *p, int64_t start, int64_t end) {
    while (end > start && p[end - 1] == ']') {
        int64_t open = end - 2;
        while (open >= start && p[open] != '[' && end - open <= 17) open--;
        if (open < start || p[open] != '[') break;
        int64_t digits = 1;
        for (int64_t i = open + 1; i < end - 1; i++) digits &= p[i] >= '0' && p[i] <= '9';
        int named = (end - open == 6 && p[open + 1] == 'e' && starts(p + open, end - open, "[edit]")) ||
                    (end - open == 17 && p[open + 1] == 'c' && starts(p + open, end - open, "[citation needed]"));
        if (!digits && !named) break;
        end = open;
    }
    return end;
}

/* Whether more than a thousand characters stand together without white space; a Chinese one begins anew. */
static int has_long_run(const uint16_t *k, int64_t start, int64_t end) {
    enum { MOST = 1000 };
    while (start + MOST < end) { /* from the end of what would be such a run, which skips nearly all */
        int64_t i = start + MOST;
        while (i > start && (k[i] & CLASS) != SPACE && (k[i] & CLASS) != HAN) i--;
        if ((k[i] & CLASS) == SPACE) start = i + 1;
        else if (i > start) start = i;
        else return 1;
    }
    return 0;
}

/* Whether there are three pieces between white space; a character of a script without spaces is one. */
static int has_three_pieces(const uint16_t *k, int64_t start, int64_t end) {
    int64_t pieces = 0, run = 0;
    for (int64_t i = start; i < end && pieces < 3; i++) {
        int kind = k[i] & CLASS;
        pieces += kind != SPACE && (run == 0 || kind == HAN || kind == UNSPACED);
        run = kind == SPACE ? 0 : 1;
    }
    return pieces >= 3;
}

/* Whether what C4 looks for in lines may be anywhere in a text: { and parts of javascript, lorem ipsum and the POLICIES. */
static int is_suspicious(const uint8_t *data, int64_t bytes) {
    uint8_t found = 0;
    for (int64_t i = 0; i < bytes; i++) found |= data[i] == '{';
    for (int64_t i = 0; i + 5 <= bytes; i++) {
        uint8_t a = data[i] | 32, b = data[i + 1] | 32, c = data[i + 2] | 32, d = data[i + 3] | 32, e = data[i + 4] | 32;
        found |= (uint8_t)((a == 'c') & (b == 'o') & (c == 'o') & (d == 'k') & (e == 'i'));
        found |= (uint8_t)((a == 'v') & (b == 'a') & (c == 'c') & (d == 'y') & (e == ' '));
        found |= (uint8_t)((a == 'r') & (b == 'm') & (c == 's') & (d == ' ') & (e == 'o'));
        found |= (uint8_t)((a == 'v') & (b == 'a') & (c == 's') & (d == 'c') & (e == 'r'));
        found |= (uint8_t)((a == 'e') & (b == 'm') & (c == ' ') & (d == 'i') & (e == 'p'));
    }
    return found;
}

/* The rules of C4 for one line without the white space around it. `words` are those of find_words in it. */
static void c4_line(const Scratch *s, int64_t start, int64_t end, int suspicious, const Word *words, int64_t count,
                    int64_t *out) {
    const uint32_t *p = s->points;
    const uint16_t *k = s->classes;
    if (has_long_run(k, start, end)) return;
    int64_t stop = without_citations(p, start, end);
    if (stop <= start) return;
    uint32_t last = p[stop - 1];
    int ended = (k[stop - 1] & TERMINAL) || last == '"' || last == '\'' || last == 0x201d || last == 0x300d || last == 0xff1b;
    if (!ended || (stop - start >= 3 && last == '.' && p[stop - 2] == '.' && p[stop - 3] == '.')) return;
    if (!has_three_pieces(k, start, end)) return;
    int script = 0, policy = 0;
    for (int64_t i = start; i < stop && suspicious; i++) {
        switch (p[i]) {
        case '{': out[C4_BRACKETS] = 1; break;
        case 'l': case 'L': if (starts(p + i, stop - i, "lorem ipsum")) out[C4_LOREM_IPSUM] = 1; break;
        case 'j': case 'J': script |= starts(p + i, stop - i, "javascript"); break;
        case 't': case 'T': case 'p': case 'P': case 'c': case 'C': case 'u': case 'U':
            for (int j = 0; j < 6 && !policy; j++) policy |= starts(p + i, stop - i, POLICIES[j]);
        }
    }
    if (script) { out[C4_SCRIPT_LINES]++; return; }
    if (policy) { out[C4_POLICY_LINES]++; return; }
    out[C4_LINES]++;
    int ending = 1; /* a sentence begins at the first word, and at each that follows a terminal mark */
    for (int64_t i = 0; i < count; i++) {
        if (words[i].start >= stop) break;
        uint16_t first = k[words[i].start];
        int sign = !words[i].spelled;
        if (sign && (first & TERMINAL)) {
            ending = 1;
        } else if (ending && !sign) {
            out[C4_SENTENCES]++;
            ending = 0;
        }
    }
}

static void count_block(Scratch *s, int64_t mask, uint64_t hash, int64_t size, int64_t *out) {
    out[BLOCKS]++;
    if (seen_before(s, mask, hash ^ 0x5bd1e995c6b7a3f1ULL)) { /* in a set with the lines, of which some are no blocks */
        out[REPEATED_BLOCKS]++;
        out[REPEATED_BLOCK_CHARACTERS] += size;
    }
}

static void count_lines(Scratch *s, int64_t length, int64_t words, int suspicious, int64_t *out) {
    const uint32_t *p = s->points;
    const uint16_t *k = s->classes;
    int64_t word = 0, elements = out[NEWLINES] + 2, mask = empty_set(s, 2 * elements);
    /* blocks: what line feeds, however many, divide; empty ones at the beginning and the end where a line feed is there */
    for (int64_t start = 0; start < length;) {
        int64_t end = start;
        while (end < length && p[end] != '\n') end++;
        int64_t first = start, last = end;
        while (first < last && (k[first] & CLASS) == SPACE) first++;
        while (last > first && (k[last - 1] & CLASS) == SPACE) last--;
        uint64_t hash = hash_piece(p, start, end);
        out[LINES]++;
        if (first < last) {
            out[BULLET_LINES] += p[first] == 0x2022 || p[first] == '-';
            out[ELLIPSIS_LINES] += is_ellipsis_end(p, first, last);
            out[WRITTEN_LINES]++;
            out[ENDED_LINES] += (k[end - 1] & TERMINAL) != 0;
            out[SHORT_LINES] += end - start <= 30;
            if (seen_before(s, mask, hash)) out[REPEATED_LINE_CHARACTERS] += end - start;
            while (word < words && s->words[word].start < first) word++;
            int64_t next = word;
            while (next < words && s->words[next].start < last) next++;
            c4_line(s, first, last, suspicious, s->words + word, next - word, out);
            word = next;
        }
        if (start < end || start == 0) count_block(s, mask, hash, end - start, out);
        if (end == length - 1) count_block(s, mask, hash_piece(p, end, end), 0, out);
        start = end + 1;
    }
    /* paragraphs: what two line feeds or more divide, in the text without the white space around it */
    mask = empty_set(s, elements);
    int64_t begin = 0, stop = length;
    while (begin < stop && (k[begin] & CLASS) == SPACE) begin++;
    while (stop > begin && (k[stop - 1] & CLASS) == SPACE) stop--;
    for (int64_t start = begin; length;) {
        int64_t end = start;
        while (end < stop && !(p[end] == '\n' && end + 1 < stop && p[end + 1] == '\n')) end++;
        out[PARAGRAPHS]++;
        if (seen_before(s, mask, hash_piece(p, start, end))) {
            out[REPEATED_PARAGRAPHS]++;
            out[REPEATED_PARAGRAPH_CHARACTERS] += end - start;
        }
        if (end >= stop) break;
        start = end;
        while (start < stop && p[start] == '\n') start++;
    }
}

/* --- all of it ----------------------------------------------------------------------------------------------------- */

/* A few words by their hashes. */
enum { SEATS = 256 };
typedef struct { uint64_t keys[SEATS]; } Few;

static void fill(Few *few, const uint64_t *keys, int64_t count) {
    memset(few, 0, sizeof(*few));
    for (int64_t i = 0; i < count && i < SEATS / 2; i++) {
        uint64_t at = keys[i] % SEATS;
        while (few->keys[at]) at = (at + 1) % SEATS;
        few->keys[at] = keys[i];
    }
}

static int member(const Few *few, uint64_t key) {
    uint64_t at = key % SEATS;
    while (few->keys[at] && few->keys[at] != key) at = (at + 1) % SEATS;
    return few->keys[at] == key;
}

static uint64_t lower_hash(const uint32_t *p, int64_t start, int64_t end) {
    uint64_t h = 0x9e3779b97f4a7c15ULL;
    for (int64_t i = start; i < end; i++) {
        uint32_t c = p[i] >= 'A' && p[i] <= 'Z' ? p[i] + 32 : p[i];
        h = (h ^ c) * 0x100000001b3ULL;
    }
    return mixed(h);
}

/* How many characters are what. In blocks, so that a compiler can count in many short numbers at a time. */
static void count_characters(const uint32_t *p, const uint16_t *k, int64_t length, int64_t *out) {
    enum { BLOCK = 1 << 14 };
    for (int64_t from = 0; from < length; from += BLOCK) {
        int64_t size = length - from < BLOCK ? length - from : BLOCK;
        uint16_t letter = 0, mark = 0, digit = 0, space = 0, punctuation = 0, han = 0, unspaced = 0, control = 0;
        uint16_t simplified = 0, traditional = 0;
        for (int64_t i = 0; i < size; i++) {
            uint16_t flags = k[from + i], kind = flags & CLASS;
            letter += kind == LETTER;
            mark += kind == MARK;
            digit += kind == DIGIT;
            space += kind == SPACE;
            punctuation += kind == PUNCTUATION;
            han += kind == HAN;
            unspaced += kind == UNSPACED;
            control += kind == CONTROL;
            simplified += (flags & (CLASS | SIMPLIFIED)) == (HAN | SIMPLIFIED);
            traditional += (flags & (CLASS | TRADITIONAL)) == (HAN | TRADITIONAL);
        }
        uint32_t latin = 0, newlines = 0, hashes = 0, ellipses = 0;
        for (int64_t i = 0; i < size; i++) {
            uint32_t c = p[from + i];
            latin += (c < 0x250) & ((k[from + i] & CLASS) == LETTER);
            newlines += c == '\n';
            hashes += c == '#';
            ellipses += c == 0x2026;
        }
        out[LETTERS] += letter + mark + han + unspaced;
        out[DIGITS] += digit;
        out[SPACES] += space;
        out[PUNCTUATIONS] += punctuation;
        out[SYMBOLS] += size - letter - mark - digit - space - punctuation - han - unspaced - control;
        out[CONTROLS] += control;
        out[LATIN] += latin;
        out[HANS] += han;
        out[UNSPACEDS] += unspaced;
        out[SIMPLIFIEDS] += simplified;
        out[TRADITIONALS] += traditional;
        out[NEWLINES] += newlines;
        out[HASHES] += hashes;
        out[ELLIPSES] += ellipses;
    }
    for (int64_t i = 0; i + 2 < length; i++) {
        if (p[i + 2] != '.') { i += 2; continue; }
        if (p[i] != '.' || p[i + 1] != '.') continue;
        int64_t end = i;
        while (end < length && p[end] == '.') end++;
        out[ELLIPSES] += (end - i) / 3; /* "......" are two, as str.count has it */
        i = end;
    }
}

/* How many of a few characters occur. */
static int64_t count_present(const uint32_t *p, int64_t length, const uint32_t *few, int64_t count) {
    int64_t found = 0;
    for (int64_t j = 0; j < count; j++) {
        int64_t i = 0;
        while (i < length && p[i] != few[j]) i++;
        found += i < length;
    }
    return found;
}

static int count_text(Scratch *s, int64_t length, int suspicious, const uint64_t *stop_words, int64_t stops, const Few *few_stops,
                      const Few *functions, const uint32_t *han_stops, int64_t han_count, int64_t *out) {
    const uint32_t *p = s->points;
    uint64_t stop_found = 0;
    out[CHARACTERS] = length;
    count_characters(p, s->classes, length, out);
    if (out[HANS]) out[HAN_STOP_WORDS] = count_present(p, length, han_stops, han_count);
    int64_t words = find_words(s, length);
    if (words < 0 || !reserve_slots(s, words > 2 * out[NEWLINES] + 4 ? words : 2 * out[NEWLINES] + 4)) return 0;
    out[WORDS] = words;
    for (int64_t i = 0; i < words; i++) {
        const Word *w = &s->words[i];
        int64_t size = w->end - w->start;
        if (w->spelled) {
            out[SPELLED_WORDS]++;
            out[SPELLED_CHARACTERS] += size;
            if (size > out[LONGEST_WORD]) out[LONGEST_WORD] = size;
        }
        if (w->alphabetic) {
            out[ALPHABETIC_WORDS]++;
            if (size <= 6 && p[w->start] < 0x80) { /* as all words of both lists */
                out[FUNCTION_WORDS] += member(functions, lower_hash(p, w->start, w->end));
                if (!member(few_stops, w->hash)) continue;
                for (int64_t j = 0; j < stops; j++)
                    if (stop_words[j] == w->hash) stop_found |= 1ULL << j;
            }
        }
    }
    out[STOP_WORDS] = __builtin_popcountll(stop_found);
    count_lines(s, length, words, suspicious, out);
    return count_runs(s, words, out);
}

/* Counts for `texts` texts, text t in data[offsets[t] .. offsets[t + 1]); returns 0 where memory ran out. */
int gristmill_features(const uint8_t *data, const int64_t *offsets, int64_t texts, const uint16_t *classes,
                       const uint64_t *stop_words, int64_t stops, const uint64_t *function_words, int64_t functions,
                       const uint32_t *han_stops, int64_t han_count, int64_t *out) {
    Scratch s = {0};
    Few few_stops, few_functions;
    fill(&few_stops, stop_words, stops);
    fill(&few_functions, function_words, functions);
    int whole = 1;
    for (int64_t t = 0; t < texts && whole; t++) {
        int64_t bytes = examined(data + offsets[t], offsets[t + 1] - offsets[t]);
        int64_t *row = out + t * FEATURES;
        memset(row, 0, FEATURES * sizeof(int64_t));
        whole = reserve_text(&s, bytes + 1);
        if (!whole) break;
        int64_t length = decode(data + offsets[t], bytes, s.points);
        for (int64_t i = 0; i < length; i++) s.classes[i] = classes[s.points[i]];
        int suspicious = is_suspicious(data + offsets[t], bytes);
        whole = count_text(&s, length, suspicious, stop_words, stops, &few_stops, &few_functions, han_stops, han_count, row);
    }
    release(&s);
    return whole;
}

int64_t gristmill_feature_count(void) { return FEATURES; }

/* --- shingles and signatures --------------------------------------------------------------------------------------- */

/* The units of a text whose runs are compared: each Han, Kana or Thai character, each run of letters and digits (in
 * lower case where that is ASCII), nothing else. Returns how many; `hashes` has room for one a byte. */
static int64_t find_units(Scratch *s, int64_t length, uint64_t *hashes) {
    const uint16_t *k = s->classes;
    int64_t n = 0, i = 0;
    while (i < length) {
        int kind = k[i] & CLASS;
        if (kind == HAN || kind == UNSPACED) {
            hashes[n++] = hash_points(s->points, i, i + 1);
            i++;
        } else if (is_alnum(k[i])) {
            int64_t start = i;
            while (i < length && is_alnum(k[i])) i++;
            hashes[n++] = lower_hash(s->points, start, i);
        } else {
            i++;
        }
    }
    return n;
}

/* 32-bit hashes of the runs of `size` units of each text, in their order; a shorter text is one run.
 *
 * counts[t] is how many text t has; `room` is that of `out`. Returns how many there are in all, or -1 without memory,
 * or -2 where they do not fit. */
int64_t gristmill_shingles(const uint8_t *data, const int64_t *offsets, int64_t texts, const uint16_t *classes, int64_t size,
                           int64_t *counts, uint32_t *out, int64_t room) {
    Scratch s = {0};
    uint64_t *units = NULL;
    int64_t unit_room = 0, total = 0;
    for (int64_t t = 0; t < texts && total >= 0; t++) {
        int64_t bytes = offsets[t + 1] - offsets[t];
        if (!reserve_text(&s, bytes + 1)) { total = -1; break; }
        if (bytes + 1 > unit_room) {
            unit_room = (bytes + 1) * 3 / 2;
            free(units);
            units = malloc((size_t)unit_room * 8);
            if (!units) { total = -1; break; }
        }
        int64_t length = decode(data + offsets[t], bytes, s.points);
        for (int64_t i = 0; i < length; i++) s.classes[i] = classes[s.points[i]];
        int64_t n = find_units(&s, length, units);
        int64_t runs = n == 0 ? 0 : n < size ? 1 : n - size + 1, width = n < size ? n : size;
        if (total + runs > room) { total = -2; break; }
        for (int64_t i = 0; i < runs; i++) {
            uint64_t h = 0;
            for (int64_t j = 0; j < width; j++) h = mixed(h * 31 + units[i + j]);
            out[total + i] = (uint32_t)(h >> 32);
        }
        counts[t] = runs;
        total += runs;
    }
    free(units);
    release(&s);
    return total;
}

/* MinHash: for each text the hashes of `bands` groups of `rows` minima, each minimum under a hash function of its own.
 * The functions are x -> fold(x * multipliers[i] + additions[i]). A text of fewer than `least` runs has 0 everywhere. */
void gristmill_bands(const uint32_t *shingles, const int64_t *counts, int64_t texts, const uint32_t *multipliers,
                     const uint32_t *additions, int64_t bands, int64_t rows, int64_t least, uint64_t *out) {
    enum { MOST = 1024 };
    uint32_t minima[MOST];
    int64_t functions = bands * rows < MOST ? bands * rows : MOST;
    for (int64_t t = 0; t < texts; t++) {
        for (int64_t i = 0; i < functions; i++) minima[i] = UINT32_MAX;
        for (int64_t j = 0; j < counts[t]; j++) {
            uint32_t x = shingles[j];
            for (int64_t i = 0; i < functions; i++) {
                uint32_t h = x * multipliers[i] + additions[i];
                h ^= h >> 15;
                h *= 0x2c1b3c6dU;
                h ^= h >> 12;
                minima[i] = h < minima[i] ? h : minima[i];
            }
        }
        for (int64_t b = 0; b < bands; b++) {
            uint64_t h = (uint64_t)b + 1;
            for (int64_t r = 0; r < rows; r++) h = mixed(h * 31 + minima[b * rows + r]);
            out[t * bands + b] = counts[t] < least ? 0 : h;
        }
        shingles += counts[t];
    }
}

/* How many units of a text stand in shingles that another has too, and (gap) how many in a row do not, at most.
 *
 * `values` are the text's shingles, ascending, `places` where in it each stands, `others` the other's, ascending. A shingle
 * is `size` units. Returns -1 where memory ran out. */
int64_t gristmill_lack(const uint32_t *values, const int32_t *places, int64_t count, const uint32_t *others, int64_t other_count,
                       int64_t size, int64_t *gap) {
    *gap = 0;
    if (!count) return 0;
    uint8_t *has = calloc((size_t)count, 1);
    if (!has) return -1;
    for (int64_t i = 0, j = 0; i < count && j < other_count;) {
        uint32_t a = values[i], b = others[j];
        if (a == b) has[places[i]] = 1;
        i += a <= b;
        j += b < a;
    }
    int64_t covered = 0, end = 0; /* of what is covered so far */
    for (int64_t i = 0; i < count; i++) {
        if (!has[i]) continue;
        if (i > end && i - end > *gap) *gap = i - end;
        covered += i + size - (i > end ? i : end);
        end = i + size;
    }
    int64_t units = count + size - 1;
    if (units - end > *gap) *gap = units - end;
    free(has);
    return covered;
}
