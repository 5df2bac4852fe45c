/* Spikes of a layer of neurons over all time steps, and the gradient: the equations are in fused.py.

   x, spikes and gradients are [steps][n], in float, or in bfloat16 where `bf16` is set; the membrane is in float. The
   steps of x lie `apart` numbers from each other: n, or 0 where all are the same one.
   A block of neurons goes through all its steps while it lies in the cache. Every operation of the forward pass is the
   one that torch does, in its order: compile without contraction to fused multiply-adds and without -ffast-math.

   The n neurons of a step are [..][members][inner], and each member has constants of its own; a block lies within one
   member. A plain layer is one member with all n. */

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { INTEGRATE, LEAK, LEAK_TIMES };
enum { ATAN, SIGMOID, TRIANGLE, RECTANGLE, GAUSSIAN };
enum { MOST_THREADS = 64, LEAST_WORK = 1 << 17, SUMS = 2 };

#define PI 3.14159265358979323846
#define SQRT_2PI 2.50662827463100050242

typedef struct {
    const void *x, *grad; /* grad: NULL in the forward pass */
    void *out;
    double *sums; /* [blocks][2]: dL/dthreshold and dL/drate of each block */
    const float *thresholds, *rates; /* [members] */
    const double *alphas;            /* [members] */
    int64_t steps, n, apart, members, inner, block;
    int32_t bf16, charge, hard, detach, family, of_threshold, of_rate;
    float threshold, rate; /* of the member at work */
    double alpha;
} Layer;

static float from_bf16(uint16_t a) {
    uint32_t bits = (uint32_t)a << 16;
    float b;
    memcpy(&b, &bits, 4);
    return b;
}

static uint16_t to_bf16(float a) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &a, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(a != a ? 0x7fc0 : rounded);
}

static const float *read_row(const Layer *l, const void *from, int64_t at, int64_t m, float *buffer) {
    if (!l->bf16) return (const float *)from + at;
    const uint16_t *row = (const uint16_t *)from + at;
    for (int64_t j = 0; j < m; j++) buffer[j] = from_bf16(row[j]);
    return buffer;
}

static void write_row(const Layer *l, int64_t t, int64_t start, int64_t m, const float *row) {
    int64_t at = t * l->n + start;
    if (!l->bf16) {
        memcpy((float *)l->out + at, row, m * sizeof(float));
        return;
    }
    uint16_t *to = (uint16_t *)l->out + at;
    for (int64_t j = 0; j < m; j++) to[j] = to_bf16(row[j]);
}

static void charge(const Layer *l, const float *restrict v, const float *restrict x, float *restrict h, int64_t m) {
    float rate = l->rate;
    if (l->charge == INTEGRATE)
        for (int64_t j = 0; j < m; j++) h[j] = v[j] + x[j];
    else if (l->charge == LEAK)
        for (int64_t j = 0; j < m; j++) h[j] = v[j] + (x[j] - v[j]) / rate;
    else
        for (int64_t j = 0; j < m; j++) h[j] = v[j] + (x[j] - v[j]) * rate;
}

static void fire(const Layer *l, const float *restrict h, float *restrict s, float *restrict v, int64_t m) {
    float th = l->threshold;
    for (int64_t j = 0; j < m; j++) s[j] = h[j] - th >= 0 ? 1.0f : 0.0f;
    if (l->hard)
        for (int64_t j = 0; j < m; j++) v[j] = h[j] * (1 - s[j]);
    else
        for (int64_t j = 0; j < m; j++) v[j] = h[j] - s[j] * th;
}

/* exp to about 1 ulp: 2^n times a Taylor series of degree 7 on [-ln 2 / 2, ln 2 / 2]. The factor 2^n comes in two, so
   that results below the normal numbers, 0 and infinity come out as they should. */
static inline __attribute__((always_inline)) float exponential(float x) {
    float y = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x;
    float n = (y * 1.44269504088896341f + 12582912.0f) - 12582912.0f; /* round */
    float r = (y - n * 0.693359375f) + n * 2.12194440054690583e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = (p * r) * r + r + 1.0f;
    int32_t whole = (int32_t)(y == y ? n : 0), half = whole / 2;
    int32_t first = (half + 127) << 23, second = (whole - half + 127) << 23;
    float a, b;
    memcpy(&a, &first, 4);
    memcpy(&b, &second, 4);
    return p * a * b;
}

static void surrogate(const Layer *l, const float *restrict h, float *restrict g, int64_t m) {
    float th = l->threshold, alpha = (float)l->alpha, half = (float)(l->alpha / 2);
    float slope = (float)(PI / 2 * l->alpha), peak = (float)(l->alpha / SQRT_2PI);
    switch (l->family) {
    case ATAN:
        for (int64_t j = 0; j < m; j++) {
            float z = slope * (h[j] - th);
            g[j] = half / (1 + z * z);
        }
        break;
    case SIGMOID:
        for (int64_t j = 0; j < m; j++) {
            float s = 1 / (1 + exponential(-(alpha * (h[j] - th))));
            g[j] = alpha * s * (1 - s);
        }
        break;
    case TRIANGLE:
        for (int64_t j = 0; j < m; j++) {
            float u = h[j] - th, z = 1 - alpha * (u < 0 ? -u : u);
            g[j] = alpha * (z < 0 ? 0 : z);
        }
        break;
    case RECTANGLE:
        for (int64_t j = 0; j < m; j++) {
            float u = h[j] - th;
            g[j] = half * (alpha * (u < 0 ? -u : u) < 1 ? 1.0f : 0.0f);
        }
        break;
    default:
        for (int64_t j = 0; j < m; j++) {
            float z = alpha * (h[j] - th);
            g[j] = peak * exponential(-(z * z) / 2);
        }
    }
}

/* Eight sums at once, which is a fixed order whatever the compiler makes of it. */
static double total(const float *a, int64_t m) {
    double lanes[8] = {0}, sum = 0;
    int64_t j = 0;
    for (; j + 8 <= m; j += 8)
        for (int k = 0; k < 8; k++) lanes[k] += a[j + k];
    for (; j < m; j++) lanes[j % 8] += a[j];
    for (int k = 0; k < 8; k++) sum += lanes[k];
    return sum;
}

/* Rows that one thread works in, each of `block` floats. */
typedef struct {
    float *v, *x, *s, *gs, *gv, *gh, *of_threshold, *of_rate; /* one row each */
    float *h, *g;                                             /* a row for each step */
} Rows;

static int64_t rows_of(int64_t steps) { return 8 + 2 * steps; }

static Rows rows_in(float *space, const Layer *l) {
    int64_t b = l->block;
    Rows r = {space,         space + b,     space + 2 * b, space + 3 * b, space + 4 * b,
              space + 5 * b, space + 6 * b, space + 7 * b, space + 8 * b, space + (8 + l->steps) * b};
    return r;
}

static void spikes_of(const Layer *l, int64_t start, int64_t m, Rows r) {
    memset(r.v, 0, m * sizeof(float));
    for (int64_t t = 0; t < l->steps; t++) {
        charge(l, r.v, read_row(l, l->x, t * l->apart + start, m, r.x), r.h, m);
        fire(l, r.h, r.s, r.v, m);
        write_row(l, t, start, m, r.s);
    }
}

/* d[t] in place of g(h[t] - th), then gh, and what the step adds to dL/dthreshold. */
static void through_spike(const Layer *l, Rows r, const float *restrict gs, const float *restrict h, float *restrict d,
                          int64_t m) {
    float th = l->threshold, *restrict gv = r.gv, *restrict gh = r.gh, *restrict sum = r.of_threshold;
    if (l->detach)
        for (int64_t j = 0; j < m; j++) d[j] = gs[j] * d[j];
    else if (l->hard)
        for (int64_t j = 0; j < m; j++) d[j] = (gs[j] - gv[j] * h[j]) * d[j];
    else
        for (int64_t j = 0; j < m; j++) d[j] = (gs[j] - gv[j] * th) * d[j];
    if (l->of_threshold && l->hard)
        for (int64_t j = 0; j < m; j++) sum[j] -= d[j];
    else if (l->of_threshold)
        for (int64_t j = 0; j < m; j++) sum[j] -= d[j] + gv[j] * (h[j] - th >= 0 ? 1.0f : 0.0f);
    if (l->hard)
        for (int64_t j = 0; j < m; j++) gh[j] = d[j] + gv[j] * (1 - (h[j] - th >= 0 ? 1.0f : 0.0f));
    else
        for (int64_t j = 0; j < m; j++) gh[j] = d[j] + gv[j];
}

/* dL/dx[t] in place of gh, and gv of the step before. */
static void through_charge(const Layer *l, float *restrict gh, float *restrict gv, int64_t m) {
    float rate = l->rate;
    if (l->charge == INTEGRATE) {
        memcpy(gv, gh, m * sizeof(float));
        return;
    }
    for (int64_t j = 0; j < m; j++) gv[j] = gh[j];
    if (l->charge == LEAK)
        for (int64_t j = 0; j < m; j++) gh[j] = gh[j] / rate;
    else
        for (int64_t j = 0; j < m; j++) gh[j] = gh[j] * rate;
    for (int64_t j = 0; j < m; j++) gv[j] = gv[j] - gh[j];
}

static void gradient_of(const Layer *l, int64_t start, int64_t m, Rows r, double *sums) {
    int64_t b = l->block;
    memset(r.v, 0, m * sizeof(float));
    for (int64_t t = 0; t < l->steps; t++) {
        charge(l, r.v, read_row(l, l->x, t * l->apart + start, m, r.x), r.h + t * b, m);
        surrogate(l, r.h + t * b, r.g + t * b, m);
        if (t + 1 < l->steps) fire(l, r.h + t * b, r.s, r.v, m);
    }
    memset(r.gv, 0, m * sizeof(float));
    memset(r.of_threshold, 0, m * sizeof(float));
    memset(r.of_rate, 0, m * sizeof(float));
    for (int64_t t = l->steps - 1; t >= 0; t--) {
        through_spike(l, r, read_row(l, l->grad, t * l->n + start, m, r.gs), r.h + t * b, r.g + t * b, m);
        if (l->of_rate) {
            if (t) fire(l, r.h + (t - 1) * b, r.s, r.v, m);
            else memset(r.v, 0, m * sizeof(float));
            const float *x = read_row(l, l->x, t * l->apart + start, m, r.x);
            for (int64_t j = 0; j < m; j++) r.of_rate[j] += r.gh[j] * (x[j] - r.v[j]);
        }
        through_charge(l, r.gh, r.gv, m);
        write_row(l, t, start, m, r.gh);
    }
    sums[0] = l->of_threshold ? total(r.of_threshold, m) : 0;
    sums[1] = l->of_rate ? total(r.of_rate, m) : 0;
}

typedef struct {
    const Layer *layer;
    float *space;
    int64_t first, last; /* blocks */
} Share;

/* Of the `inner` neurons of one member that lie side by side. */
static int64_t blocks_of_a_run(const Layer *l) { return (l->inner + l->block - 1) / l->block; }

static void *work(void *given) {
    Share *share = given;
    Layer own = *share->layer, *l = &own;
    Rows r = rows_in(share->space, l);
    int64_t a_run = blocks_of_a_run(l);
    for (int64_t i = share->first; i < share->last; i++) {
        int64_t run = i / a_run, before = i % a_run * l->block, left = l->inner - before;
        int64_t start = run * l->inner + before, m = left < l->block ? left : l->block, member = run % l->members;
        l->threshold = l->thresholds[member];
        l->rate = l->rates[member];
        l->alpha = l->alphas[member];
        if (l->grad)
            gradient_of(l, start, m, r, l->sums + SUMS * i);
        else
            spikes_of(l, start, m, r);
    }
    return NULL;
}

/* 0, or 1 where memory ran out. `sums` [members][2] is summed block by block, however many threads there are. */
int snnsweep_neurons(Layer layer, int32_t threads, double *sums) {
    Layer *l = &layer;
    int64_t most = l->steps * l->n / LEAST_WORK + 1;
    threads = threads < most ? threads : (int32_t)most;
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    l->block = 8192 / (l->steps < 8 ? 8 : l->steps > 128 ? 128 : l->steps); /* some 32 KB of h, and no row below 64 */
    int64_t a_run = blocks_of_a_run(l), blocks = l->n / l->inner * a_run, floats = rows_of(l->steps) * l->block;
    float *space = malloc(threads * floats * sizeof(float));
    l->sums = malloc((blocks + 1) * SUMS * sizeof(double));
    if (!space || !l->sums) {
        free(space);
        free(l->sums);
        return 1;
    }
    Share shares[MOST_THREADS];
    pthread_t ids[MOST_THREADS];
    int started[MOST_THREADS] = {0};
    for (int i = 0; i < threads; i++) {
        shares[i] = (Share){l, space + i * floats, blocks * i / threads, blocks * (i + 1) / threads};
        started[i] = i > 0 && pthread_create(&ids[i], NULL, work, &shares[i]) == 0;
    }
    for (int i = 0; i < threads; i++)
        if (!started[i]) work(&shares[i]);
    for (int i = 0; i < threads; i++)
        if (started[i]) pthread_join(ids[i], NULL);
    memset(sums, 0, l->members * SUMS * sizeof(double));
    for (int64_t i = 0; l->grad && i < blocks; i++)
        for (int k = 0; k < SUMS; k++) sums[i / a_run % l->members * SUMS + k] += l->sums[SUMS * i + k];
    free(space);
    free(l->sums);
    return 0;
}
