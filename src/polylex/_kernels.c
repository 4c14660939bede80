/* Search kernels, called through ctypes by kernels.py, which holds the same functions in numpy.
 *
 * Nothing here allocates, and nothing here trusts a mapped file: positions read from it are checked before use,
 * offsets are 16 bits wide and every array that they index has BLOCK entries.
 *
 * A score is the sum of products in the order of the terms. Where a segment has planes (docs/format.md), these are
 * added first, in whole numbers and 64 documents at a time; that gives an interval for each score. Only documents
 * whose interval reaches the k best are scored by definition, so that results are the same to the last bit.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#elif defined(_M_X64)
#include <intrin.h>
#define PREFETCH(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)
#else
#define PREFETCH(address) ((void)(address))
#endif

/* Loops over many documents are compiled for wide vectors, too; the program takes what the machine has. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define WIDE __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define WIDE
#endif

#define BLOCK 65536 /* documents of a segment at most: what 16 bits can tell apart */
#define STRIDE 64   /* documents looked at together; BLOCK is a multiple, and planes are filled up to one */
#define PANEL 4096  /* documents whose sums stay in the first cache while plane after plane is added */
#define PLANES 256  /* of a query at most: their sums must fit 16 bits and still be precise */
#define GROUP 16    /* documents of which the greatest estimate stands for all */
#define BINS 2048   /* into which estimates are sorted to find about the k-th */
#define LEAST 1e-30f /* numbers that are added between these lose no more than ROUNDING each */
#define MOST 1e30f
#define NEVER -3e38f    /* score of a document that is no hit */
#define ROUNDING 1.2e-7 /* of one float operation, relative, and a little more */
#define UNROLL 16   /* postings added at once: as many float weights as a cache line holds */
/* Postings that are asked for ahead. The processor looks ahead by itself, but not across pages and not from one run
 * to the next; measured at 100k documents, doing so by hand takes a third off a search. */
#define AHEAD 512
#define LOOKUP 64 /* documents are looked up in a run one by one where it has this many times more postings */
#define BATCH 32   /* documents whose weights are asked for together */
#define FEW 256   /* allowed documents of a segment that are scored one by one */

typedef struct {
    const uint32_t *terms;   /* [runs] increasing */
    const uint32_t *starts;  /* [runs + 1] run r holds postings starts[r] .. starts[r + 1] */
    const float *bounds;     /* [runs] greatest weight of a run */
    const uint32_t *dense;   /* [planes] the runs that have a plane, increasing */
    const uint32_t *before;  /* [planes + 1] postings of dense runs before each, and of all */
    const uint8_t *plane;    /* [planes, rows up to a STRIDE] uint8_t weights, or rounded up to units of bound / 255 */
    const uint16_t *ranks;   /* [planes, strides] documents of a plane before each STRIDE */
    const uint16_t *offsets; /* [sparse] document, relative to first_row */
    const void *weights;     /* float or uint16_t [postings], or uint8_t [sparse] in units of bound / 255 */
    int64_t runs, planes, sparse, postings, rows, first_row;
    int64_t weight_size; /* 4: float, 2: uint16_t, 1: uint8_t */
} Segment;

/* Which documents of a segment may be hits: [(rows + 7) / 8], one bit each, lowest first; NULL where all may. */
typedef const uint8_t *Allowed;

typedef struct {
    const uint32_t *terms;
    const float *weights;
    int64_t count;
} Query;

typedef struct {
    const uint8_t *plane;    /* of a dense run; NULL for a sparse one */
    const uint16_t *offsets; /* [count] of a sparse run; of a dense one the ranks of its plane */
    const void *weights;     /* [count]; not of a dense run of uint8_t, whose plane holds them */
    int64_t count;
    float factor; /* query weight, for uint8_t weights times their unit */
    float unit;   /* query weight times bound / 255 */
    double bound; /* greatest product */
} Run;

/* A query's runs in a segment, and what their plane sums say about scores. */
typedef struct {
    Run *runs;
    int64_t count, dense;
    double bound;       /* of any score */
    double rounding;    /* of a score, relative */
    double over, under; /* a score exceeds its estimate by at most this, or falls short of it */
    float scale;        /* of one step of a plane sum */
    int certain;        /* whether all this holds: no number near the ends of what a float can hold */
} Plan;

typedef struct {
    float *scores; /* heap: the worst hit on top */
    int64_t *rows;
    int64_t size, capacity;
} Hits;

typedef struct {
    float *scores;      /* [BLOCK] scores, or estimates of them */
    float *exact;       /* [BLOCK] scores of candidates; nothing of meaning elsewhere */
    float *maxima;      /* [BLOCK / GROUP] greatest estimate of each group */
    uint16_t *sums;     /* [BLOCK] sums of planes */
    uint16_t *chosen;   /* [BLOCK] candidates, increasing */
    Run *runs;          /* [terms of a query] */
} Scratch;

/* Bytes of a plane. */
static int64_t width(const Segment *segment) { return (segment->rows + STRIDE - 1) / STRIDE * STRIDE; }

/* -- finding the runs of a query --------------------------------------------------------------- */

/* First of values[low .. high) that is not below `value`. */
static int64_t lower_bound(const uint32_t *values, int64_t low, int64_t high, uint32_t value) {
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (values[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The same for all terms of a query, side by side: the processor then waits for many places of memory at one time. */
static void lower_bounds(const Segment *segment, const Query *query, Run *runs) {
    for (int64_t i = 0; i < query->count; i++)
        runs[i].count = 0;
    for (int64_t size = segment->runs; size > 0;) {
        const int64_t half = (size + 1) / 2;
        for (int64_t i = 0; i < query->count; i++)
            if (runs[i].count + half <= segment->runs && segment->terms[runs[i].count + half - 1] < query->terms[i])
                runs[i].count += half;
        size -= half;
    }
    for (int64_t i = 0; i < query->count; i++) {
        PREFETCH(segment->starts + runs[i].count);
        PREFETCH(segment->bounds + runs[i].count);
    }
}

/* What the segment has for its run `at`, of which `plane` says where it stands, or would, among the dense ones.
 * Returns -1 where its postings lie outside of the segment. */
static int describe(const Segment *segment, int64_t at, int64_t plane, float weight, Run *run) {
    const int64_t bytes = width(segment), before = segment->before[plane];
    const int64_t start = segment->starts[at], end = segment->starts[at + 1];
    if (start > end || end > segment->postings)
        return -1;
    run->count = end - start;
    run->factor = weight;
    run->unit = weight * (segment->bounds[at] / 255.0f);
    run->bound = (double)weight * segment->bounds[at];
    run->plane = plane < segment->planes && segment->dense[plane] == at ? segment->plane + plane * bytes : NULL;
    if (segment->weight_size == 1)
        run->factor = run->unit;
    if (segment->weight_size > 1)
        run->weights = (const char *)segment->weights + start * segment->weight_size;
    else
        run->weights = run->plane ? NULL : (const uint8_t *)segment->weights + (start - before);
    if (run->plane) {
        run->offsets = segment->ranks + plane * (bytes / STRIDE);
        return 0;
    }
    run->offsets = segment->offsets + (start - before);
    return before > start || end - before > segment->sparse ? -1 : 0;
}

/* Looks up the terms of a query; returns 0, or -1 as `describe` does. */
static int find_runs(const Segment *segment, const Query *query, Plan *plan) {
    int64_t plane = 0;
    plan->count = plan->dense = 0;
    lower_bounds(segment, query, plan->runs);
    for (int64_t i = 0; i < query->count; i++) {
        const int64_t at = plan->runs[i].count;
        if (at == segment->runs)
            break;
        if (segment->terms[at] != query->terms[i])
            continue;
        plane = lower_bound(segment->dense, plane, segment->planes, (uint32_t)at);
        Run *run = plan->runs + plan->count++;
        if (describe(segment, at, plane, query->weights[i], run))
            return -1;
        plan->dense += run->plane != NULL;
    }
    return 0;
}

/* Works out how far scores can be from what the sums of planes and sparse runs say. */
static void set_margins(const Segment *segment, Plan *plan) {
    double units = 0;
    plan->bound = 0;
    plan->certain = plan->dense <= PLANES;
    plan->rounding = (double)(2 * plan->count + 16) * ROUNDING;
    for (int64_t i = 0; i < plan->count; i++) {
        const Run *run = plan->runs + i;
        plan->bound += run->bound;
        if (!run->plane)
            continue;
        units += run->unit;
        plan->certain &= run->unit > LEAST;
    }
    plan->bound *= 1 + plan->rounding;
    plan->certain &= plan->bound < MOST;
    /* A plane adds floor(byte * level / 256) steps, level = ceil(256 * unit / scale), so that a step is lost or won
     * for each; and with weights more precise than the plane, whose bytes are rounded up, up to one unit. */
    plan->scale = (float)(256 * units / (65535 - PLANES));
    plan->over = (double)plan->dense * plan->scale;
    plan->under = plan->over + (segment->weight_size == 1 ? 0 : units);
}

/* -- adding ------------------------------------------------------------------------------------ */

static float of_float(float weight) { return weight; }
static float of_byte(uint8_t weight) { return (float)weight; }

/* The upper half of a float without its sign, which is never set. */
static float of_half(uint16_t weight) {
    const uint32_t bits = (uint32_t)weight << 15;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#define DEFINE_ADD(name, weight_type, decode)                                                                        \
    static void name(float *restrict scores, const uint16_t *restrict offsets, const weight_type *restrict weights,  \
                     int64_t count, float factor) {                                                                  \
        int64_t i = 0;                                                                                               \
        for (; i + UNROLL <= count; i += UNROLL) {                                                                   \
            PREFETCH(weights + i + AHEAD);                                                                           \
            PREFETCH(offsets + i + AHEAD);                                                                           \
            for (int64_t j = i; j < i + UNROLL; j++)                                                                 \
                scores[offsets[j]] += decode(weights[j]) * factor;                                                   \
        }                                                                                                            \
        for (; i < count; i++)                                                                                       \
            scores[offsets[i]] += decode(weights[i]) * factor;                                                       \
    }

DEFINE_ADD(add_floats, float, of_float)
DEFINE_ADD(add_halves, uint16_t, of_half)
DEFINE_ADD(add_bytes, uint8_t, of_byte)

static void add(const Segment *segment, const Run *run, float *scores) {
    if (segment->weight_size == 4)
        add_floats(scores, run->offsets, run->weights, run->count, run->factor);
    else if (segment->weight_size == 2)
        add_halves(scores, run->offsets, run->weights, run->count, run->factor);
    else
        add_bytes(scores, run->offsets, run->weights, run->count, run->factor);
}

/* Asks for the first postings of a run. */
static void prefetch(const Segment *segment, const Run *run) {
    const int64_t end = run->count < AHEAD ? run->count : AHEAD;
    for (int64_t i = 0; i < end; i += UNROLL) {
        PREFETCH((const char *)run->weights + i * segment->weight_size);
        PREFETCH(run->offsets + i);
    }
}

static const Run *next_sparse(const Plan *plan, int64_t from) {
    for (; from < plan->count; from++)
        if (!plan->runs[from].plane)
            return plan->runs + from;
    return NULL;
}

/* The products of all sparse runs, in the order of the terms. */
static void add_sparse(const Segment *segment, const Plan *plan, float *scores) {
    memset(scores, 0, (size_t)width(segment) * sizeof *scores);
    for (const Run *run = next_sparse(plan, 0), *next; run; run = next) {
        next = next_sparse(plan, run - plan->runs + 1);
        if (next)
            prefetch(segment, next);
        add(segment, run, scores);
    }
}

WIDE static void add_plane(uint16_t *restrict sums, const uint8_t *restrict plane, int64_t count, uint16_t level) {
    for (int64_t base = 0; base < count; base += STRIDE) {
        PREFETCH(plane + base + PANEL); /* wanted when its turn comes again */
        for (int64_t i = base; i < base + STRIDE; i++) {
            const uint16_t high = (uint16_t)(plane[i] << 8);
            sums[i] = (uint16_t)(sums[i] + (uint16_t)(((uint32_t)high * (uint32_t)level) >> 16));
        }
    }
}

static void add_planes(const Segment *segment, const Plan *plan, uint16_t *sums) {
    const int64_t end = width(segment);
    memset(sums, 0, (size_t)end * sizeof *sums);
    for (int64_t base = 0; base < end; base += PANEL)
        for (int64_t i = 0; i < plan->count; i++) {
            const Run *run = plan->runs + i;
            const int64_t count = end - base < PANEL ? end - base : PANEL;
            const double level = 256 * (double)run->unit / plan->scale;
            if (run->plane)
                add_plane(sums + base, run->plane + base, count, (uint16_t)(level + 1));
        }
}

/* -- the best so far --------------------------------------------------------------------------- */

/* Whether hit a ranks after hit b: lower score, or the same and a later document. */
static int worse(const Hits *hits, int64_t a, int64_t b) {
    if (hits->scores[a] != hits->scores[b])
        return hits->scores[a] < hits->scores[b];
    return hits->rows[a] > hits->rows[b];
}

static void swap(Hits *hits, int64_t a, int64_t b) {
    const float score = hits->scores[a];
    const int64_t row = hits->rows[a];
    hits->scores[a] = hits->scores[b];
    hits->rows[a] = hits->rows[b];
    hits->scores[b] = score;
    hits->rows[b] = row;
}

static void sink(Hits *hits, int64_t at, int64_t size) {
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= size)
            return;
        if (child + 1 < size && worse(hits, child + 1, child))
            child++;
        if (!worse(hits, child, at))
            return;
        swap(hits, child, at);
        at = child;
    }
}

/* Takes a hit that is above the threshold. */
static void offer(Hits *hits, float score, int64_t row) {
    if (hits->size == hits->capacity) {
        hits->scores[0] = score;
        hits->rows[0] = row;
        sink(hits, 0, hits->size);
        return;
    }
    int64_t at = hits->size++;
    hits->scores[at] = score;
    hits->rows[at] = row;
    while (at && worse(hits, at, (at - 1) / 2)) {
        swap(hits, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

/* What a score must exceed: rows increase, so that one which only equals the worst hit's never replaces it. */
static float threshold(const Hits *hits) { return hits->size == hits->capacity ? hits->scores[0] : 0.0f; }

/* -- which documents are allowed ---------------------------------------------------------------- */

/* The bits of the STRIDE documents from `base` on, in memory order. */
static uint64_t stride_bits(Allowed allowed, int64_t rows, int64_t base) {
    const int64_t left = (rows - base + 7) / 8;
    uint64_t bits = 0;
    memcpy(&bits, allowed + base / 8, (size_t)(left < STRIDE / 8 ? left : STRIDE / 8));
    return bits;
}

/* Puts the allowed documents into `chosen`, unless there are more than `limit`; returns how many, or limit + 1. */
static int64_t choose_allowed(Allowed allowed, int64_t rows, int64_t limit, uint16_t *chosen) {
    int64_t count = 0;
    for (int64_t base = 0; base < rows; base += STRIDE) {
        if (allowed && !stride_bits(allowed, rows, base))
            continue;
        const int64_t end = base + STRIDE < rows ? base + STRIDE : rows;
        for (int64_t i = base; i < end; i++) {
            if (allowed && !(allowed[i / 8] >> (i % 8) & 1))
                continue;
            if (count == limit)
                return limit + 1;
            chosen[count++] = (uint16_t)i;
        }
    }
    return count;
}

/* Takes documents that are not allowed out of the running. */
WIDE static void forbid(Allowed allowed, int64_t rows, float *scores) {
    for (int64_t base = 0; base < rows; base += 8)
        for (int i = 0; i < 8; i++)
            scores[base + i] = allowed[base / 8] >> i & 1 ? scores[base + i] : NEVER;
}

/* -- from sums to hits -------------------------------------------------------------------------- */

WIDE static int any_above(const float *scores, float limit) {
    int found = 0;
    for (int i = 0; i < STRIDE; i++)
        found |= scores[i] > limit;
    return found;
}

/* Takes the hits of a segment all of whose scores are known. */
static void collect(const Segment *segment, const float *scores, Hits *hits) {
    float limit = threshold(hits);
    for (int64_t base = 0; base < segment->rows; base += STRIDE) {
        if (!any_above(scores + base, limit))
            continue;
        const int64_t end = base + STRIDE < segment->rows ? base + STRIDE : segment->rows;
        for (int64_t i = base; i < end; i++) {
            if (!(scores[i] > limit))
                continue;
            offer(hits, scores[i], segment->first_row + i);
            limit = threshold(hits);
        }
    }
}

/* Adds plane sums to the sums of sparse runs; leaves in `maxima` [BLOCK / GROUP] the greatest of each GROUP documents,
 * which stand STRIDE apart: so that this is done for STRIDE groups side by side. */
WIDE static void estimate(float *restrict scores, const uint16_t *restrict sums, float scale, int64_t rows,
                          float *restrict maxima) {
    for (int64_t base = 0; base < rows; base += STRIDE) {
        float *restrict group = maxima + base / (STRIDE * GROUP) * STRIDE;
        if (base % (STRIDE * GROUP) == 0)
            for (int i = 0; i < STRIDE; i++)
                group[i] = 0;
        for (int i = 0; i < STRIDE; i++) {
            const float value = scores[base + i] + (float)sums[base + i] * scale;
            scores[base + i] = value;
            group[i] = value > group[i] ? value : group[i];
        }
    }
}

/* A value, as great as is quickly found, that at least k of some values reach; 0 where fewer than k exceed `least`. */
WIDE static float reached_by(const float *values, int64_t count, int64_t k, float least) {
    uint32_t bins[BINS] = {0};
    float greatest = 0;
    int64_t above = 0;
    for (int64_t i = 0; i < count; i++)
        above += values[i] > least;
    if (above < k)
        return 0;
    for (int64_t i = 0; i < count; i++)
        greatest = values[i] > greatest ? values[i] : greatest;
    if (!(greatest > LEAST && greatest < MOST)) /* a damaged file can have made it infinite */
        return 0;
    const float scale = (BINS - 1) / greatest;
    for (int64_t i = 0; i < count; i++)
        bins[values[i] > 0 ? (int)(values[i] * scale) : 0]++;
    for (int bin = BINS - 1; bin > 0; bin--) {
        k -= bins[bin];
        if (k <= 0)
            return (float)bin / scale * 0.999999f;
    }
    return 0;
}

/* What an estimate must exceed for its score to exceed `limit`. */
static float estimate_of(const Plan *plan, float limit) {
    return (float)(((double)limit - plan->over) / (1 + plan->rounding));
}

/* Puts into `chosen` every document whose score may be among the k best; returns how many. */
static int64_t choose_promising(const Segment *segment, const Plan *plan, const Hits *hits, Scratch *scratch) {
    const float *scores = scratch->scores;
    float limit = estimate_of(plan, threshold(hits));
    /* k documents have an estimate of at least `reached`, so the k-th best score is at least what that stands for. */
    const int64_t groups = (segment->rows + STRIDE * GROUP - 1) / (STRIDE * GROUP) * STRIDE, k = hits->capacity;
    const float reached = k <= groups / 4 ? reached_by(scratch->maxima, groups, k, limit)
                                          : reached_by(scores, segment->rows, k, limit);
    const float least = (float)(reached * (1 - plan->rounding) - plan->under);
    if (least > threshold(hits))
        limit = estimate_of(plan, least);
    int64_t count = 0;
    for (int64_t base = 0; base < segment->rows; base += STRIDE) {
        if (!any_above(scores + base, limit))
            continue;
        const int64_t end = base + STRIDE < segment->rows ? base + STRIDE : segment->rows;
        for (int64_t i = base; i < end; i++)
            if (scores[i] > limit)
                scratch->chosen[count++] = (uint16_t)i;
    }
    return count;
}

static float product(const Segment *segment, const Run *run, int64_t at) {
    if (segment->weight_size == 4)
        return ((const float *)run->weights)[at] * run->factor;
    if (segment->weight_size == 2)
        return of_half(((const uint16_t *)run->weights)[at]) * run->factor;
    return of_byte(((const uint8_t *)run->weights)[at]) * run->factor;
}

/* How many of some bytes are not 0; eight at a time. */
static int64_t count_nonzero(const uint8_t *bytes, int64_t count) {
    const uint64_t low = 0x7F7F7F7F7F7F7F7F, ones = 0x0101010101010101;
    int64_t found = 0, i = 0;
    for (; i + 8 <= count; i += 8) {
        uint64_t eight;
        memcpy(&eight, bytes + i, 8);
        eight = (((eight & low) + low) | eight) >> 7 & ones;
        found += (int64_t)((eight * ones) >> 56);
    }
    for (; i < count; i++)
        found += bytes[i] != 0;
    return found;
}

/* Adds the products of a dense run to some documents; returns -1 where its plane has more of them than weights.
 * Where weights are in a place of their own, they are asked for BATCH at a time. */
static int add_dense_at(const Segment *segment, const Run *run, const uint16_t *chosen, int64_t count, float *exact) {
    for (int64_t first = 0; first < count; first += BATCH) {
        const int64_t size = count - first < BATCH ? count - first : BATCH;
        int64_t positions[BATCH];
        for (int64_t i = 0; i < size; i++) {
            const uint16_t document = chosen[first + i];
            const int64_t stride = document / STRIDE;
            if (!run->plane[document] || !run->weights)
                continue;
            positions[i] = run->offsets[stride] + count_nonzero(run->plane + stride * STRIDE, document % STRIDE);
            if (positions[i] >= run->count)
                return -1;
            PREFETCH((const char *)run->weights + positions[i] * segment->weight_size);
        }
        for (int64_t i = 0; i < size; i++) {
            const uint16_t document = chosen[first + i];
            if (run->plane[document])
                exact[document] += run->weights ? product(segment, run, positions[i])
                                                : of_byte(run->plane[document]) * run->factor;
        }
    }
    return 0;
}

static void add_sparse_at(const Segment *segment, const Run *run, const uint16_t *chosen, int64_t count,
                          float *exact) {
    int64_t low = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t high = run->count;
        while (low < high) {
            const int64_t middle = low + (high - low) / 2;
            if (run->offsets[middle] < chosen[i])
                low = middle + 1;
            else
                high = middle;
        }
        if (low == run->count)
            return;
        if (run->offsets[low] == chosen[i])
            exact[chosen[i]] += product(segment, run, low);
    }
}

/* Scores the chosen documents by definition and takes the hits; returns 0, or -1 as `add_dense_at` does. */
static int collect_chosen(const Segment *segment, const Plan *plan, const uint16_t *chosen, int64_t count, float *exact,
                          Hits *hits) {
    for (int64_t i = 0; i < count; i++)
        exact[chosen[i]] = 0;
    for (int64_t r = 0; r < plan->count && count; r++) {
        const Run *run = plan->runs + r;
        if (run->plane) {
            if (add_dense_at(segment, run, chosen, count, exact))
                return -1;
        } else if (count * LOOKUP < run->count)
            add_sparse_at(segment, run, chosen, count, exact);
        else
            add(segment, run, exact);
    }
    for (int64_t i = 0; i < count; i++)
        if (exact[chosen[i]] > threshold(hits))
            offer(hits, exact[chosen[i]], segment->first_row + chosen[i]);
    return 0;
}

/* Takes one query's hits in one segment; returns 0, or -1 where the segment contradicts itself. */
static int search(const Segment *segment, Allowed allowed, const Query *query, Scratch *scratch, Hits *hits) {
    Plan plan = {.runs = scratch->runs};
    int64_t count = allowed ? choose_allowed(allowed, segment->rows, FEW, scratch->chosen) : FEW + 1;
    if (!count)
        return 0;
    if (find_runs(segment, query, &plan))
        return -1;
    set_margins(segment, &plan);
    if (plan.bound <= threshold(hits))
        return 0;
    if (count > FEW) {
        add_sparse(segment, &plan, scratch->scores);
        if (allowed)
            forbid(allowed, segment->rows, scratch->scores);
        if (!plan.dense) {
            collect(segment, scratch->scores, hits);
            return 0;
        }
        if (plan.certain) {
            add_planes(segment, &plan, scratch->sums);
            estimate(scratch->scores, scratch->sums, plan.scale, segment->rows, scratch->maxima);
            count = choose_promising(segment, &plan, hits, scratch);
        } else
            count = choose_allowed(allowed, segment->rows, BLOCK, scratch->chosen);
    }
    return collect_chosen(segment, &plan, scratch->chosen, count, scratch->exact, hits);
}

static Scratch carve(char *memory) {
    Scratch scratch;
    memory += -(uintptr_t)memory % 64;
    scratch.scores = (float *)memory;
    scratch.exact = scratch.scores + BLOCK;
    scratch.maxima = scratch.exact + BLOCK;
    scratch.sums = (uint16_t *)(scratch.maxima + BLOCK / GROUP);
    scratch.chosen = scratch.sums + BLOCK;
    scratch.runs = (Run *)(scratch.chosen + BLOCK);
    return scratch;
}

/* Bytes of memory that polylex_search needs, for queries of so many terms at most. */
EXPORT int64_t polylex_scratch_bytes(int64_t terms) {
    const int64_t document = 2 * sizeof(float) + 2 * sizeof(uint16_t);
    return 64 + BLOCK * document + BLOCK / GROUP * (int64_t)sizeof(float) + terms * (int64_t)sizeof(Run);
}

/* The k best documents of each query over some segments, best first.
 *
 * allowed                 [segment_count], or NULL where every document may be a hit
 * terms, weights, indptr  queries as SparseVectors
 * memory                  [polylex_scratch_bytes]
 * hit_scores, hit_rows    [queries, k] results
 * found                   [queries] how many of the k are hits
 * returns 0, or n + 1 where segment n holds a run that leaves its postings
 */
EXPORT int64_t polylex_search(const Segment *segments, int64_t segment_count, const Allowed *allowed,
                              const uint32_t *terms, const float *weights, const int64_t *indptr, int64_t queries,
                              int64_t k, char *memory, float *hit_scores, int64_t *hit_rows, int64_t *found) {
    Scratch scratch = carve(memory);
    memset(found, 0, (size_t)queries * sizeof *found);
    for (int64_t s = 0; s < segment_count; s++) {
        if (segments[s].rows < 0 || segments[s].rows > BLOCK)
            return s + 1;
        for (int64_t q = 0; q < queries; q++) { /* inside, while the segment is in the cache */
            const Query query = {terms + indptr[q], weights + indptr[q], indptr[q + 1] - indptr[q]};
            Hits hits = {hit_scores + q * k, hit_rows + q * k, found[q], k};
            if (search(segments + s, allowed ? allowed[s] : NULL, &query, &scratch, &hits))
                return s + 1;
            found[q] = hits.size;
        }
    }
    for (int64_t q = 0; q < queries; q++) {
        Hits hits = {hit_scores + q * k, hit_rows + q * k, found[q], k};
        for (int64_t last = hits.size - 1; last > 0; last--) {
            swap(&hits, 0, last);
            sink(&hits, 0, last);
        }
    }
    return 0;
}

WIDE static int any_equal(const uint16_t *offsets, uint16_t document) {
    int found = 0;
    for (int i = 0; i < STRIDE; i++)
        found |= offsets[i] == document;
    return found;
}

/* Positions of the postings of one document; `positions` has room for all. Reads offsets only. */
EXPORT int64_t polylex_positions_of(const uint16_t *offsets, int64_t postings, uint16_t document, int64_t *positions) {
    int64_t count = 0;
    for (int64_t base = 0; base < postings; base += STRIDE) {
        const int64_t end = base + STRIDE < postings ? base + STRIDE : postings;
        if (end - base == STRIDE && !any_equal(offsets + base, document))
            continue;
        for (int64_t i = base; i < end; i++)
            if (offsets[i] == document)
                positions[count++] = i;
    }
    return count;
}

/* Positions of the postings whose document is wanted; `positions` may be NULL, to count first. */
EXPORT int64_t polylex_positions(const uint16_t *offsets, int64_t postings, const uint8_t *wanted,
                                 int64_t *positions) {
    int64_t count = 0;
    for (int64_t i = 0; i < postings; i++) {
        if (!wanted[offsets[i]])
            continue;
        if (positions)
            positions[count] = i;
        count++;
    }
    return count;
}

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "polylex._kernels", NULL, 0, NULL, NULL, NULL, NULL, NULL};

/* An extension module only so that every installer builds and finds it; Python sees no function of it. */
PyMODINIT_FUNC PyInit__kernels(void) {
    PyObject *created = PyModule_Create(&module);
#ifdef Py_GIL_DISABLED
    if (created != NULL)
        PyUnstable_Module_SetGIL(created, Py_MOD_GIL_NOT_USED);
#endif
    return created;
}
