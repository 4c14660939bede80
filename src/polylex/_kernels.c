/* Search kernels, called through ctypes by kernels.py, which holds the same functions in numpy.
 *
 * Nothing here allocates, and nothing here trusts a mapped file: positions read from it are checked before use,
 * offsets are 16 bits wide and every array that they index has BLOCK entries.
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

#define BLOCK 65536 /* documents of a segment at most: what 16 bits can tell apart */
#define STRIDE 64   /* scores compared with the threshold at once; BLOCK is a multiple */
#define UNROLL 16   /* postings added at once: as many float weights as a cache line holds */
/* Postings that are asked for ahead. The processor looks ahead by itself, but not across pages and not from one run
 * to the next; measured at 100k documents, doing so by hand takes a third off a search. */
#define AHEAD 512

typedef struct {
    const uint32_t *terms;   /* [runs] increasing */
    const uint32_t *starts;  /* [runs + 1] run r is starts[r] .. starts[r + 1] of the postings */
    const float *bounds;     /* [runs] greatest weight of a run */
    const uint16_t *offsets; /* [postings] document, relative to first_row */
    const void *weights;     /* [postings] float, or uint8_t in units of bound / 255 */
    int64_t runs, postings, rows, first_row;
    int64_t weight_size; /* 4: float, 1: uint8_t */
} Segment;

typedef struct {
    int64_t start, end;
    float factor; /* query weight, for uint8_t weights times their unit */
} Run;

typedef struct {
    float *scores; /* heap: the worst hit on top */
    int64_t *rows;
    int64_t size, capacity;
} Hits;

/* First of terms[low .. high) that is not below `term`. */
static int64_t lower_bound(const uint32_t *terms, int64_t low, int64_t high, uint32_t term) {
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (terms[middle] < term)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

#define DEFINE_ADD(name, weight_type)                                                                                \
    static void name(float *restrict scores, const uint16_t *restrict offsets, const weight_type *restrict weights,  \
                     int64_t count, float factor) {                                                                  \
        int64_t i = 0;                                                                                               \
        for (; i + UNROLL <= count; i += UNROLL) {                                                                   \
            PREFETCH(weights + i + AHEAD);                                                                           \
            PREFETCH(offsets + i + AHEAD);                                                                           \
            for (int64_t j = i; j < i + UNROLL; j++)                                                                 \
                scores[offsets[j]] += (float)weights[j] * factor;                                                    \
        }                                                                                                            \
        for (; i < count; i++)                                                                                       \
            scores[offsets[i]] += (float)weights[i] * factor;                                                        \
    }

DEFINE_ADD(add_floats, float)
DEFINE_ADD(add_bytes, uint8_t)

static void add(const Segment *segment, const Run *run, float *scores) {
    const int64_t count = run->end - run->start;
    if (segment->weight_size == 4)
        add_floats(scores, segment->offsets + run->start, (const float *)segment->weights + run->start, count,
                   run->factor);
    else
        add_bytes(scores, segment->offsets + run->start, (const uint8_t *)segment->weights + run->start, count,
                  run->factor);
}

/* Asks for the first postings of a run. */
static void prefetch(const Segment *segment, const Run *run) {
    const int64_t end = run->end - run->start < AHEAD ? run->end : run->start + AHEAD;
    for (int64_t i = run->start; i < end; i += UNROLL) {
        PREFETCH((const char *)segment->weights + i * segment->weight_size);
        PREFETCH(segment->offsets + i);
    }
}

/* Finds the next term of the query that the segment has. `term` and `at` say where to go on, in query and segment.
 * Returns 1 if there is one, 0 if not, -1 where its postings lie outside of the segment. */
static int next_run(const Segment *segment, const uint32_t *terms, const float *weights, int64_t count, int64_t *term,
                    int64_t *at, Run *run) {
    for (; *term < count; ++*term) {
        *at = lower_bound(segment->terms, *at, segment->runs, terms[*term]);
        if (*at == segment->runs)
            return 0;
        if (segment->terms[*at] != terms[*term])
            continue;
        run->start = segment->starts[*at];
        run->end = segment->starts[*at + 1];
        if (run->start > run->end || run->end > segment->postings)
            return -1;
        run->factor = weights[(*term)++];
        if (segment->weight_size == 1)
            run->factor *= segment->bounds[*at] / 255.0f;
        return 1;
    }
    return 0;
}

/* Adds one query's products to `scores` in the order of the terms; returns 0, or -1 as next_run does. */
static int accumulate(const Segment *segment, const uint32_t *terms, const float *weights, int64_t count,
                      float *scores) {
    int64_t term = 0, at = 0;
    Run run, next = {0, 0, 0.0f};
    int more = next_run(segment, terms, weights, count, &term, &at, &run);
    while (more > 0) {
        more = next_run(segment, terms, weights, count, &term, &at, &next);
        if (more > 0)
            prefetch(segment, &next);
        add(segment, &run, scores);
        run = next;
    }
    return more;
}

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

static int any_above(const float *scores, float threshold) {
    int found = 0;
    for (int i = 0; i < STRIDE; i++)
        found |= scores[i] > threshold;
    return found;
}

/* Rows come in increasing order, so a score that only equals the worst hit's never replaces it. */
static void collect(const Segment *segment, const float *scores, Hits *hits) {
    float threshold = hits->size == hits->capacity ? hits->scores[0] : 0.0f;
    for (int64_t base = 0; base < segment->rows; base += STRIDE) {
        if (!any_above(scores + base, threshold))
            continue;
        const int64_t end = base + STRIDE < segment->rows ? base + STRIDE : segment->rows;
        for (int64_t i = base; i < end; i++) {
            if (!(scores[i] > threshold))
                continue;
            offer(hits, scores[i], segment->first_row + i);
            if (hits->size == hits->capacity)
                threshold = hits->scores[0];
        }
    }
}

/* The k best documents of each query over some segments, best first.
 *
 * terms, weights, indptr  queries as SparseVectors
 * scores                  [BLOCK] scratch
 * hit_scores, hit_rows    [queries, k] results
 * found                   [queries] how many of the k are hits
 * returns 0, or n + 1 where segment n holds a run that leaves its postings
 */
EXPORT int64_t polylex_search(const Segment *segments, int64_t segment_count, const uint32_t *terms,
                              const float *weights, const int64_t *indptr, int64_t queries, int64_t k, float *scores,
                              float *hit_scores, int64_t *hit_rows, int64_t *found) {
    memset(found, 0, (size_t)queries * sizeof *found);
    for (int64_t s = 0; s < segment_count; s++) {
        const Segment *segment = segments + s;
        if (segment->rows < 0 || segment->rows > BLOCK)
            return s + 1;
        for (int64_t q = 0; q < queries; q++) {
            Hits hits = {hit_scores + q * k, hit_rows + q * k, found[q], k};
            memset(scores, 0, BLOCK * sizeof *scores);
            if (accumulate(segment, terms + indptr[q], weights + indptr[q], indptr[q + 1] - indptr[q], scores))
                return s + 1;
            collect(segment, scores, &hits);
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
