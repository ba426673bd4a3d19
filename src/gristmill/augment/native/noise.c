// Noise in the tokens of a step: what `augment/tokens.py` says, and does in NumPy where there is no compiler.
//
// All that is drawn is a hash of a key (the step's, and what is drawn) and the number of a position, so nothing depends on
// what else is drawn, and the two agree to the bit.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN 0x9E3779B97F4A7C15ULL
#define BLOCK 512
#define TRIES 32

enum { REPLACED = 1, INSERTED, FOLLOWING, SWAPPED, SHIFTED, LEFT_OUT };
enum { IS_DELETED = 1, IS_FOLLOWED = 2 };

typedef struct {
    const int64_t *tokens, *segments;
    int64_t rows, columns;
    const uint8_t *ordinary;
    uint64_t key;
    const int64_t *choice;  // what random tokens are drawn from; 0 where that is the text itself
    int64_t choices;
} Text;

static inline uint64_t mixed(uint64_t x) {  // splitmix64 (Steele, Lea, Flood 2014)
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

static inline uint64_t hash_of(uint64_t key, int64_t number) { return mixed(key + ((uint64_t)number + 1) * GOLDEN); }

static inline uint64_t key_for(uint64_t key, uint64_t purpose) { return mixed(key + purpose); }

static inline int64_t below(uint64_t hash, int64_t count) { return (int64_t)(((hash >> 32) * (uint64_t)count) >> 32); }

static inline int is_text(const Text *text, int64_t place) {
    return text->segments[place] != 0 && text->ordinary[text->tokens[place]];
}

static int64_t random_token(const Text *text, int64_t place, uint64_t key) {
    if (text->choice) return text->choice[below(hash_of(key, place * TRIES), text->choices)];
    for (int64_t nth = 0; nth < TRIES; nth++) {
        int64_t from = below(hash_of(key, place * TRIES + nth), text->rows * text->columns);
        if (is_text(text, from)) return text->tokens[from];
    }
    return text->tokens[place];  // the text is hardly there: one token of it is as good as another
}

// Which of the numbers from `first` on, at most BLOCK of them, are drawn; 32 bits of a hash decide about each.
static int64_t hits(uint64_t key, uint64_t limit, int64_t first, int64_t size, int64_t *found) {
    union {
        uint64_t whole[BLOCK / 2];
        uint32_t halves[BLOCK];
    } drawn;
    union {
        uint8_t each[BLOCK];
        uint64_t eight[BLOCK / 8];
    } is_hit;
    int64_t count = 0, begin = first / 2;
    uint32_t most = (uint32_t)(limit - 1);
    for (int64_t i = 0; i < BLOCK / 2; i++) drawn.whole[i] = hash_of(key, begin + i);
    for (int64_t i = 0; i < BLOCK; i++) is_hit.each[i] = drawn.halves[i] <= most;
    memset(is_hit.each + size, 0, (size_t)(BLOCK - size));
    for (int64_t i = 0; i < BLOCK / 8; i++)
        for (uint64_t left = is_hit.eight[i]; left; left &= left - 1)
            found[count++] = first + i * 8 + __builtin_ctzll(left) / 8;
    return count;
}

static inline uint32_t half(uint64_t key, int64_t number) { return (uint32_t)(hash_of(key, number / 2) >> (number % 2 * 32)); }

// What becomes of each token: what is read in its place is written over it, and `marks`, unless it is 0, tells what is
// deleted and what is followed by something new. Limits are in 2^32ths; the first three are each the sum of those before
// it. Returns 0 where there is no memory.
int gristmill_noise(
    const Text *text, uint64_t masked, uint64_t replaced, uint64_t deleted, uint64_t inserted, int64_t mask,
    int64_t *tokens, uint8_t *marks
) {
    int64_t positions = text->rows * text->columns, found[BLOCK], changes = 0;
    uint64_t replacing = key_for(text->key, REPLACED), following = key_for(text->key, FOLLOWING);
    // random tokens are drawn from the text as it was, so all is written at the end; little of this is ever touched
    int64_t *change = masked || replaced ? malloc((size_t)positions * 2 * sizeof *change) : 0;
    if (!change && (masked || replaced)) return 0;
    if (marks) memset(marks, 0, (size_t)positions);
    for (int64_t first = 0; first < positions; first += BLOCK) {
        int64_t size = positions - first < BLOCK ? positions - first : BLOCK;
        int64_t count = deleted ? hits(text->key, deleted, first, size, found) : 0;
        for (int64_t i = 0; i < count; i++) {
            int64_t place = found[i];
            if (!is_text(text, place)) continue;
            uint32_t fate = half(text->key, place);
            if (fate >= replaced) {
                marks[place] |= IS_DELETED;
                continue;
            }
            change[2 * changes] = place;
            change[2 * changes++ + 1] = fate < masked ? mask : random_token(text, place, replacing);
        }
        count = inserted ? hits(following, inserted, first, size, found) : 0;
        for (int64_t i = 0; i < count; i++)
            if (is_text(text, found[i])) marks[found[i]] |= IS_FOLLOWED;
    }
    for (int64_t i = 0; i < changes; i++) tokens[change[2 * i]] = change[2 * i + 1];
    free(change);
    return 1;
}

// Some neighbours in each other's place; both have the target and the weight of the later one.
void gristmill_swap(
    const Text *text, uint64_t limit, const uint8_t *marks, int64_t *noisy, int64_t *targets, float *weights
) {
    int64_t slots = (text->columns + 1) / 2, total = text->rows * slots, found[BLOCK];
    uint64_t swapping = key_for(text->key, SWAPPED), shifting = key_for(text->key, SHIFTED);
    for (int64_t first = 0; first < total; first += BLOCK) {
        int64_t count = hits(swapping, limit, first, total - first < BLOCK ? total - first : BLOCK, found);
        for (int64_t i = 0; i < count; i++) {
            int64_t row = found[i] / slots, column = 2 * (found[i] % slots) + (int64_t)(hash_of(shifting, row) >> 63);
            int64_t place = row * text->columns + column, after = place + 1;
            if (column + 1 >= text->columns || text->segments[place] != text->segments[after]) continue;
            if ((marks[place] | marks[after]) & IS_DELETED || !is_text(text, place) || !is_text(text, after)) continue;
            int64_t token = noisy[place];
            noisy[place] = noisy[after];
            noisy[after] = token;
            targets[place] = targets[after];
            weights[place] = weights[after];
        }
    }
}

typedef struct {
    int64_t *runs, *fresh;  // (from, to, count) of what stays side by side; (to, token) of what is new
    int64_t run_count, fresh_count, from, to, count;
} Sequence;

static inline void flush(Sequence *sequence) {
    if (sequence->count) {
        int64_t *run = sequence->runs + 3 * sequence->run_count++;
        run[0] = sequence->from, run[1] = sequence->to, run[2] = sequence->count;
        sequence->to += sequence->count;
        sequence->count = 0;
    }
}

static inline void add(Sequence *sequence, int64_t place, int64_t count) {
    if (sequence->count && place != sequence->from + sequence->count) flush(sequence);
    if (!sequence->count) sequence->from = place;
    sequence->count += count;
}

static inline void add_new(Sequence *sequence, const Text *text, int64_t place, uint64_t inserting) {
    flush(sequence);
    sequence->from = place;
    sequence->count = 1;
    int64_t *fresh = sequence->fresh + 2 * sequence->fresh_count++;
    fresh[0] = sequence->to, fresh[1] = random_token(text, place, inserting);
}

static void add_piece(Sequence *sequence, const Text *text, int64_t first, int64_t after, const uint8_t *marks) {
    uint64_t inserting = key_for(text->key, INSERTED);
    int64_t deleted = 0, followed = 0;
    for (int64_t place = first; place < after; place++) {
        deleted += marks[place] & IS_DELETED;
        followed += marks[place] / IS_FOLLOWED;
    }
    deleted -= marks[first] & IS_DELETED;  // a piece is never left without a token
    int64_t excess = followed - deleted, begin = 0, rank = 0;
    if (excess > 0) {  // one stretch is left out; the piece grew by at most as many tokens as may be left out
        int64_t loose = 0;
        for (int64_t place = first; place < after; place++) {
            int copies = 1 - (place > first && marks[place] & IS_DELETED) + marks[place] / IS_FOLLOWED;
            loose += is_text(text, place) ? copies - (place == first) : 0;
        }
        int64_t room = loose > excess ? loose - excess : 0;
        begin = below(hash_of(key_for(text->key, LEFT_OUT), first), room + 1);
    } else excess = 0;
    for (int64_t place = first; place < after; place++) {
        if (!marks[place] && !excess) {
            int64_t next = place + 1;
            while (next < after && !marks[next]) next++;
            add(sequence, place, next - place);
            place = next - 1;
            continue;
        }
        int loose = excess && is_text(text, place);
        if (place == first || !(marks[place] & IS_DELETED)) {
            int goes = loose && place > first && rank >= begin && rank < begin + excess;
            rank += loose && place > first;
            if (!goes) add(sequence, place, 1);
        }
        if (marks[place] & IS_FOLLOWED) {
            int goes = loose && rank >= begin && rank < begin + excess;
            rank += loose;
            if (!goes) add_new(sequence, text, place, inserting);
        }
    }
}

// How the noisy rows are put together: `runs` has room for one for each row and three for each mark, `fresh` for one
// for each mark. Returns how many runs there are, and in `fresh_count` how many new tokens.
int64_t gristmill_sequence(
    const Text *text, const uint8_t *marks, int64_t *runs, int64_t *fresh, int64_t *fresh_count
) {
    Sequence sequence = {runs, fresh, 0, 0, 0, 0, 0};
    for (int64_t row = 0; row < text->rows; row++) {
        int64_t first = row * text->columns, end = first + text->columns;
        flush(&sequence);
        sequence.to = first;
        while (first < end) {
            int64_t after = first + 1, segment = text->segments[first];
            while (after < end && text->segments[after] == segment) after++;
            if (segment) add_piece(&sequence, text, first, after, marks);
            first = after;
        }
    }
    flush(&sequence);
    *fresh_count = sequence.fresh_count;
    return sequence.run_count;
}

// Values moved as the runs say; zero where nothing comes to stand.
void gristmill_move(
    const char *values, int64_t size, int64_t positions, const int64_t *runs, int64_t run_count, char *out
) {
    int64_t done = 0;
    for (int64_t i = 0; i < run_count; i++) {
        const int64_t *run = runs + 3 * i;
        if (run[1] > done) memset(out + done * size, 0, (size_t)((run[1] - done) * size));
        memcpy(out + run[1] * size, values + run[0] * size, (size_t)(run[2] * size));
        done = run[1] + run[2];
    }
    memset(out + done * size, 0, (size_t)((positions - done) * size));
}
