/* Learned quality: the units of texts and the weights of those that a text has (gristmill/corpus/quality.py), and the
 * bits that an n-gram model needs for it (perplexity.py). Integers only; both have the same in Python.
 */

#include <math.h>

#include "text.c"

/* --- units --------------------------------------------------------------------------------------------------------- */

/* The units of a text, as find_units has them, and where they begin and end, in characters. Returns how many. */
static int64_t find_spans(const Scratch *s, int64_t length, uint64_t *hashes, int32_t *spans) {
    const uint16_t *k = s->classes;
    int64_t n = 0, i = 0;
    while (i < length) {
        int64_t start = i++;
        if (is_alnum(k[start]))
            while (i < length && is_alnum(k[i])) i++;
        else if (!is_alone(k[start]))
            continue;
        hashes[n] = lower_hash(s->points, start, i);
        spans[2 * n] = (int32_t)start;
        spans[2 * n + 1] = (int32_t)i;
        n++;
    }
    return n;
}

static int64_t load_text(Scratch *s, const uint8_t *data, int64_t bytes, const uint16_t *classes) {
    bytes = examined(data, bytes);
    if (!reserve_text(s, bytes + 1)) return -1;
    int64_t length = decode(data, bytes, s->points);
    for (int64_t i = 0; i < length; i++) s->classes[i] = classes[s->points[i]];
    return length;
}

/* Hashes and places of the units of each text; counts[t] is how many text t has. `hashes` and `spans` have room for one a
 * byte. Returns how many there are in all, or -1 where memory ran out. */
int64_t gristmill_units(const uint8_t *data, const int64_t *offsets, int64_t texts, const uint16_t *classes, int64_t *counts,
                        uint64_t *hashes, int32_t *spans) {
    Scratch s = {0};
    int64_t total = 0;
    for (int64_t t = 0; t < texts; t++) {
        int64_t length = load_text(&s, data + offsets[t], offsets[t + 1] - offsets[t], classes);
        if (length < 0) { total = -1; break; }
        counts[t] = find_spans(&s, length, hashes + total, spans + 2 * total);
        total += counts[t];
    }
    release(&s);
    return total;
}

/* Rounded down, as // does. */
static int64_t divided(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* The margin of one passage: the weights of the buckets that its units and pairs of units fall into, each counted once,
 * divided by the root of how many these are. */
static int64_t passage_margin(Scratch *s, const uint64_t *units, int64_t n, const int32_t *weights, int64_t bucket_bits) {
    int64_t mask = empty_set(s, 2 * n), sum = 0, distinct = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int pair = 0; pair < 2 && i + pair < n; pair++) {
            uint64_t bucket = (pair ? mixed(units[i] * 31 + units[i + 1]) : units[i]) >> (64 - bucket_bits);
            Slot *slot = slot_of(s, bucket, mask);
            if (slot->count) continue;
            slot->count = 1;
            distinct++;
            sum += weights[bucket];
        }
    }
    return distinct ? divided(sum * (1 << 12), (int64_t)sqrt((double)(distinct << 24))) : 0;
}

/* The margin of each text: the mean of those of its passages, which have `most` units or fewer. Returns 0 where memory
 * ran out. */
int gristmill_quality(const uint8_t *data, const int64_t *offsets, int64_t texts, const uint16_t *classes,
                      const int32_t *weights, int64_t bucket_bits, int64_t most, int64_t *margins) {
    Scratch s = {0};
    uint64_t *units = NULL;
    int64_t room = 0;
    int whole = reserve_slots(&s, 2 * most);
    for (int64_t t = 0; t < texts && whole; t++) {
        int64_t length = load_text(&s, data + offsets[t], offsets[t + 1] - offsets[t], classes);
        if (length >= room) {
            room = (length + 1) * 3 / 2;
            free(units);
            units = malloc((size_t)room * sizeof(uint64_t));
        }
        if (length < 0 || !units) { whole = 0; break; }
        int64_t n = find_units(&s, length, units), passages = (n + most - 1) / most, sum = 0;
        for (int64_t i = 0; i < passages; i++) {
            int64_t from = n * i / passages, to = n * (i + 1) / passages;
            sum += passage_margin(&s, units + from, to - from, weights, bucket_bits);
        }
        margins[t] = passages ? divided(sum, passages) : 0;
    }
    free(units);
    release(&s);
    return whole;
}

/* --- bits ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t key;   /* of what stands before: 56 bits */
    uint32_t begin; /* of its entries */
    uint32_t rest;  /* the share left to shorter contexts, of 2^20 */
} Context;

enum { MOST_BEFORE = 16 };

typedef struct {
    const uint32_t *firsts; /* firsts[key >> shift] is the first context with such a key; contexts stand in their order */
    int64_t shift;
    const Context *contexts; /* the last has only a begin */
    const uint32_t *entries; /* share (of 2^24) and symbol, of each context the largest first */
    int64_t characters;
} Model;

/* p has -log2(p / 2^44) bits; here in 2^-20 bits, from the logarithms of 1025 numbers from 1 to 2. */
static uint64_t bits_of(uint64_t p, const uint32_t *logarithms) {
    int top = 63 - __builtin_clzll(p);
    uint64_t fraction = (p << (44 - top)) - (1ULL << 44);
    uint64_t at = fraction >> 34, within = (fraction >> 14) & ((1 << 20) - 1);
    uint64_t low = logarithms[at], high = logarithms[at + 1];
    return ((uint64_t)(44 - top) << 20) - low - (((high - low) * within) >> 20);
}

/* The probability (of 2^44) of a byte where these hashes are of no, one, two … characters before its own, and `begun` is of
 * the bytes of its own before it. What is far apart in memory is asked for before it is needed. */
static uint64_t probability(const Model *m, const uint64_t *hashes, uint32_t begun, uint8_t byte) {
    uint64_t keys[MOST_BEFORE + 1];
    uint32_t places[MOST_BEFORE + 1];
    for (int64_t j = 0; j <= m->characters; j++) {
        keys[j] = (begun ? mixed(hashes[j] + begun) : hashes[j]) >> 8;
        __builtin_prefetch(&m->firsts[keys[j] >> m->shift]);
    }
    for (int64_t j = 0; j <= m->characters; j++) {
        places[j] = m->firsts[keys[j] >> m->shift];
        __builtin_prefetch(&m->contexts[places[j]]);
    }
    int64_t known = 0;
    for (; known <= m->characters; known++) {
        uint32_t at = places[known], end = m->firsts[(keys[known] >> m->shift) + 1];
        while (at < end && m->contexts[at].key < keys[known]) at++;
        if (at == end || m->contexts[at].key != keys[known]) break;
        places[known] = at;
        __builtin_prefetch(&m->entries[m->contexts[at].begin]);
    }
    uint64_t p = 1ULL << 36;
    for (int64_t j = 0; j < known; j++) {
        const Context *c = m->contexts + places[j];
        p = (p * c->rest) >> 20;
        for (uint32_t k = c->begin; k < c[1].begin; k++)
            if ((uint8_t)m->entries[k] == byte) {
                p += (uint64_t)(m->entries[k] >> 8) << 20;
                break;
            }
    }
    return p ? p : 1;
}

/* The bits (times 2^20) that each text needs. */
void gristmill_bits(const uint8_t *data, const int64_t *offsets, int64_t texts, const uint32_t *firsts, int64_t first_bits,
                    const Context *contexts, const uint32_t *entries, int64_t characters, const uint32_t *logarithms,
                    uint64_t *out) {
    Model m = {firsts, 56 - first_bits, contexts, entries, characters};
    uint64_t hashes[MOST_BEFORE + 1];
    uint32_t before[MOST_BEFORE]; /* one more than the characters before, the nearest first; 0 before the beginning */
    for (int64_t t = 0; t < texts; t++) {
        const uint8_t *text = data + offsets[t];
        int64_t bytes = examined(text, offsets[t + 1] - offsets[t]);
        uint64_t total = 0;
        uint32_t point = 0, begun = 0; /* bytes of this character, as a number with a 1 before it */
        memset(before, 0, sizeof before);
        for (int64_t i = 0; i < bytes; i++) {
            uint8_t byte = text[i];
            if ((byte & 0xc0) != 0x80) {
                if (i) {
                    memmove(before + 1, before, sizeof before - sizeof *before);
                    before[0] = point + 1;
                }
                point = byte < 0x80 ? byte : byte < 0xe0 ? byte & 31 : byte < 0xf0 ? byte & 15 : byte & 7;
                begun = 0;
                hashes[0] = 0x9e3779b97f4a7c15ULL;
                for (int64_t j = 0; j < characters; j++) hashes[j + 1] = mixed(hashes[j] * 31 + before[j]);
            } else {
                point = point << 6 | (byte & 63);
            }
            total += bits_of(probability(&m, hashes, begun, byte), logarithms);
            begun = begun ? begun << 8 | byte : 256u | byte;
        }
        out[t] = total;
    }
}
