/* A driver of GPUs that are not there, for tests: as much of libcuda as this program calls. Memory of
 * a GPU is memory of the host, a stream is a thread that does what was queued, in order. So what is
 * queued, waited for, captured and aborted really is; nothing is computed.
 *
 * Also the functions of cuBLASLt, which say yes and multiply nothing.
 *
 * PRETEND_GPUS is how many there are; 2 if it is not set. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_CONTEXT = 201, NOT_READY = 600, CAPTURING = 900 };
enum { MAX_GPUS = 8, MAX_STREAMS = 256, PAYLOAD = 96 };

/* What is queued: a function and a copy of its arguments. */
typedef struct {
    void (*run)(const void *);
    _Alignas(16) char payload[PAYLOAD];
} Op;

typedef struct {
    Op *ops;
    size_t len, room;
} Graph;

typedef struct {
    int gpu;
    Op *ops; /* ring */
    size_t room;
    uint64_t queued, done;
    Graph *capture;
    int ended, running;
    pthread_t thread;
} Stream;

typedef struct {
    Stream *stream;
    uint64_t at;
} Event;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static Stream null_streams[MAX_GPUS];
static Stream *streams[MAX_STREAMS];
static int num_streams;
static _Thread_local int current = -1; /* GPU of this thread's context */

#define IN_CONTEXT if (current < 0) return NO_CONTEXT

static int num_gpus(void) {
    const char *text = getenv("PRETEND_GPUS");
    int count = text ? atoi(text) : 2;
    return count < MAX_GPUS ? count : MAX_GPUS;
}

static void *life(void *argument) {
    Stream *stream = argument;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (stream->done == stream->queued && !stream->ended) pthread_cond_wait(&changed, &lock);
        if (stream->done == stream->queued) break;
        Op op = stream->ops[stream->done % stream->room];
        pthread_mutex_unlock(&lock);
        op.run(op.payload);
        pthread_mutex_lock(&lock);
        stream->done++;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* The lock is held. */
static Stream *of(void *stream) {
    return stream ? stream : &null_streams[current];
}

static void append(Stream *stream, const Op *op) {
    if (stream->queued - stream->done == stream->room) {
        size_t room = stream->room ? 2 * stream->room : 64;
        Op *ops = malloc(room * sizeof(Op));
        for (uint64_t at = stream->done; at < stream->queued; at++)
            ops[at % room] = stream->ops[at % stream->room];
        free(stream->ops);
        stream->ops = ops;
        stream->room = room;
    }
    stream->ops[stream->queued++ % stream->room] = *op;
    if (!stream->running) {
        stream->running = 1;
        pthread_create(&stream->thread, NULL, life, stream);
    }
    pthread_cond_broadcast(&changed);
}

static int queue(void *handle, void (*run)(const void *), const void *payload, size_t bytes) {
    IN_CONTEXT;
    if (bytes > PAYLOAD) return INVALID;
    Op op = {run, {0}};
    memcpy(op.payload, payload, bytes);
    pthread_mutex_lock(&lock);
    Stream *stream = of(handle);
    if (stream->capture) {
        Graph *graph = stream->capture;
        if (graph->len == graph->room) {
            graph->room = graph->room ? 2 * graph->room : 64;
            graph->ops = realloc(graph->ops, graph->room * sizeof(Op));
        }
        graph->ops[graph->len++] = op;
    } else {
        append(stream, &op);
    }
    pthread_mutex_unlock(&lock);
    return OK;
}

static int wait_for(Stream *stream, uint64_t at) {
    while (stream->done < at) pthread_cond_wait(&changed, &lock);
    return OK;
}

/* Waits for all streams of the current GPU, as the driver does before it frees memory. */
static int wait_for_all(void) {
    int status = OK;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < num_streams; i++)
        if (streams[i] && streams[i]->gpu == current) {
            if (streams[i]->capture) status = CAPTURING;
            else wait_for(streams[i], streams[i]->queued);
        }
    wait_for(&null_streams[current], null_streams[current].queued);
    pthread_mutex_unlock(&lock);
    return status;
}

/* ---- devices ---- */
int cuInit(unsigned flags) { (void)flags; return OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = num_gpus(); return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
int cuDeviceGetName(char *name, int len, int device) {
    (void)device;
    strncpy(name, "Pretended GPU", len);
    return OK;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    /* Compute capability 9.0, 32 MiB of L2. */
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 38 ? 32 << 20 : 4;
    return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)(intptr_t)(device + 1);
    null_streams[device].gpu = device;
    return OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return OK; }
int cuCtxSetCurrent(void *context) { current = (int)(intptr_t)context - 1; return OK; }
int cuCtxGetCurrent(void **context) { *context = (void *)(intptr_t)(current + 1); return OK; }
int cuCtxSynchronize(void) { IN_CONTEXT; return wait_for_all(); }
int cuMemGetInfo_v2(size_t *available, size_t *total) {
    IN_CONTEXT;
    *available = *total = (size_t)2 << 30;
    return OK;
}
int cuDeviceCanAccessPeer(int *can, int device, int peer) { (void)device, (void)peer; *can = 1; return OK; }
int cuCtxEnablePeerAccess(void *context, unsigned flags) { (void)context, (void)flags; return OK; }
int cuGetErrorName(int error, const char **name) { (void)error; *name = "PRETENDED_ERROR"; return OK; }
int cuGetErrorString(int error, const char **text) { (void)error; *text = "a pretended error"; return OK; }

/* ---- memory ---- */
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    IN_CONTEXT;
    void *memory = NULL;
    /* What nobody writes costs nothing. */
    if (bytes == 0 || posix_memalign(&memory, 4096, bytes)) return NO_MEMORY;
    *address = (uint64_t)(uintptr_t)memory;
    return OK;
}
int cuMemFree_v2(uint64_t address) {
    IN_CONTEXT;
    int status = wait_for_all();
    free((void *)(uintptr_t)address);
    return status;
}
int cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
    (void)flags;
    IN_CONTEXT;
    return posix_memalign(address, 4096, bytes) ? NO_MEMORY : OK;
}
int cuMemFreeHost(void *address) { IN_CONTEXT; free(address); return OK; }
int cuMemHostGetDevicePointer_v2(uint64_t *address, void *host, unsigned flags) {
    (void)flags;
    *address = (uint64_t)(uintptr_t)host;
    return OK;
}

typedef struct { void *to; const void *from; size_t to_pitch, from_pitch, width, height; } Copy;
static void copy(const void *payload) {
    const Copy *c = payload;
    for (size_t row = 0; row < c->height; row++)
        memcpy((char *)c->to + row * c->to_pitch, (const char *)c->from + row * c->from_pitch, c->width);
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    Copy c = {(void *)(uintptr_t)to, from, 0, 0, bytes, 1};
    return queue(stream, copy, &c, sizeof c);
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    Copy c = {to, (void *)(uintptr_t)from, 0, 0, bytes, 1};
    return queue(stream, copy, &c, sizeof c);
}
/* CUDA_MEMCPY2D. Of the two addresses of each side the one of the host counts for hosts. */
typedef struct {
    size_t from_x, from_y;
    int from_kind;
    const void *from_host;
    uint64_t from;
    void *from_array;
    size_t from_pitch, to_x, to_y;
    int to_kind;
    void *to_host;
    uint64_t to;
    void *to_array;
    size_t to_pitch, width, height;
} Copy2d;
int cuMemcpy2DAsync_v2(const Copy2d *p, void *stream) {
    const void *from = p->from_kind == 1 ? p->from_host : (void *)(uintptr_t)p->from;
    void *to = p->to_kind == 1 ? p->to_host : (void *)(uintptr_t)p->to;
    Copy c = {to, from, p->to_pitch, p->from_pitch, p->width, p->height};
    return queue(stream, copy, &c, sizeof c);
}

typedef struct { char *to; size_t pitch, width, height; uint16_t value; } Fill;
static void fill_bytes(const void *payload) {
    const Fill *f = payload;
    for (size_t row = 0; row < f->height; row++) memset(f->to + row * f->pitch, f->value, f->width);
}
static void fill_words(const void *payload) {
    const Fill *f = payload;
    for (size_t i = 0; i < f->width; i++) ((uint16_t *)f->to)[i] = f->value;
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *stream) {
    Fill f = {(char *)(uintptr_t)to, 0, bytes, 1, value};
    return queue(stream, fill_bytes, &f, sizeof f);
}
int cuMemsetD16Async(uint64_t to, unsigned short value, size_t len, void *stream) {
    Fill f = {(char *)(uintptr_t)to, 0, len, 1, value};
    return queue(stream, fill_words, &f, sizeof f);
}
int cuMemsetD2D8Async(uint64_t to, size_t pitch, unsigned char value, size_t width, size_t height, void *stream) {
    Fill f = {(char *)(uintptr_t)to, pitch, width, height, value};
    return queue(stream, fill_bytes, &f, sizeof f);
}

/* ---- streams and events ---- */
int cuStreamCreate(void **handle, unsigned flags) {
    (void)flags;
    IN_CONTEXT;
    Stream *stream = calloc(1, sizeof(Stream));
    stream->gpu = current;
    pthread_mutex_lock(&lock);
    int at = 0;
    while (at < num_streams && streams[at]) at++;
    if (at == num_streams && num_streams++ == MAX_STREAMS) abort();
    streams[at] = stream;
    pthread_mutex_unlock(&lock);
    *handle = stream;
    return OK;
}
int cuStreamSynchronize(void *handle) {
    IN_CONTEXT;
    pthread_mutex_lock(&lock);
    Stream *stream = of(handle);
    int status = stream->capture ? CAPTURING : wait_for(stream, stream->queued);
    pthread_mutex_unlock(&lock);
    return status;
}
int cuStreamDestroy_v2(void *handle) {
    Stream *stream = handle;
    pthread_mutex_lock(&lock);
    stream->ended = 1;
    for (int i = 0; i < num_streams; i++)
        if (streams[i] == stream) streams[i] = NULL;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    /* Events may still name it, so its memory stays. */
    if (stream->running) pthread_join(stream->thread, NULL);
    return OK;
}
static void wait_in_stream(const void *payload) {
    const Event *event = payload;
    pthread_mutex_lock(&lock);
    wait_for(event->stream, event->at);
    pthread_mutex_unlock(&lock);
}
int cuStreamWaitEvent(void *stream, Event *event, unsigned flags) {
    (void)flags;
    return event->stream ? queue(stream, wait_in_stream, event, sizeof *event) : OK;
}
typedef struct { void (*run)(void *); void *argument; } Call;
static void call(const void *payload) {
    const Call *c = payload;
    c->run(c->argument);
}
int cuLaunchHostFunc(void *stream, void (*run)(void *), void *argument) {
    Call c = {run, argument};
    return queue(stream, call, &c, sizeof c);
}
int cuEventCreate(void **event, unsigned flags) {
    (void)flags;
    IN_CONTEXT;
    *event = calloc(1, sizeof(Event));
    return OK;
}
int cuEventRecord(Event *event, void *handle) {
    IN_CONTEXT;
    pthread_mutex_lock(&lock);
    event->stream = of(handle);
    event->at = event->stream->queued;
    pthread_mutex_unlock(&lock);
    return OK;
}
int cuEventQuery(Event *event) {
    IN_CONTEXT;
    pthread_mutex_lock(&lock);
    int done = !event->stream || event->stream->done >= event->at;
    pthread_mutex_unlock(&lock);
    return done ? OK : NOT_READY;
}
int cuEventSynchronize(Event *event) {
    IN_CONTEXT;
    pthread_mutex_lock(&lock);
    if (event->stream) wait_for(event->stream, event->at);
    pthread_mutex_unlock(&lock);
    return OK;
}
int cuEventElapsedTime_v2(float *milliseconds, Event *from, Event *to) {
    (void)from, (void)to;
    *milliseconds = 1.0f;
    return OK;
}
int cuEventDestroy_v2(Event *event) { free(event); return OK; }

/* ---- graphs ---- */
int cuStreamBeginCapture_v2(void *handle, int mode) {
    (void)mode;
    IN_CONTEXT;
    of(handle)->capture = calloc(1, sizeof(Graph));
    return OK;
}
int cuStreamEndCapture(void *handle, void **graph) {
    IN_CONTEXT;
    *graph = of(handle)->capture;
    of(handle)->capture = NULL;
    return OK;
}
int cuGraphInstantiateWithFlags(void **executable, const Graph *graph, unsigned long long flags) {
    (void)flags;
    Graph *copied = malloc(sizeof(Graph));
    *copied = *graph;
    copied->ops = malloc((graph->len + 1) * sizeof(Op));
    memcpy(copied->ops, graph->ops, graph->len * sizeof(Op));
    *executable = copied;
    return OK;
}
int cuGraphUpload(void *executable, void *stream) { (void)executable, (void)stream; return OK; }
int cuGraphLaunch(const Graph *graph, void *stream) {
    int status = OK;
    for (size_t i = 0; i < graph->len && status == OK; i++)
        status = queue(stream, graph->ops[i].run, graph->ops[i].payload, PAYLOAD);
    return status;
}
/* Launches have copied what is in it. */
int cuGraphExecDestroy(Graph *graph) { free(graph->ops); free(graph); return OK; }
int cuGraphDestroy(Graph *graph) { return cuGraphExecDestroy(graph); }

/* ---- cuBLASLt ---- */
size_t cublasLtGetVersion(void) { return 130100; }
int cublasLtCreate(void **handle) { *handle = (void *)1; return OK; }
int cublasLtDestroy(void *handle) { (void)handle; return OK; }
int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    (void)type, (void)rows, (void)columns, (void)stride;
    *layout = (void *)1;
    return OK;
}
int cublasLtMatrixLayoutDestroy(void *layout) { (void)layout; return OK; }
int cublasLtMatmulDescCreate(void **description, int compute, int scale) {
    (void)compute, (void)scale;
    *description = (void *)1;
    return OK;
}
int cublasLtMatmulDescDestroy(void *description) { (void)description; return OK; }
int cublasLtMatmulDescSetAttribute(void *description, int attribute, const void *value, size_t bytes) {
    (void)description, (void)attribute, (void)value, (void)bytes;
    return OK;
}
int cublasLtMatmulPreferenceCreate(void **preference) { *preference = (void *)1; return OK; }
int cublasLtMatmulPreferenceDestroy(void *preference) { (void)preference; return OK; }
int cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *value, size_t bytes) {
    (void)preference, (void)attribute, (void)value, (void)bytes;
    return OK;
}
/* cublasLtMatmulHeuristicResult_t. */
typedef struct { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; } Found;
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *description, void *a, void *b, void *c, void *d,
                                   void *preference, int wanted, Found *found, int *num_found) {
    (void)handle, (void)description, (void)a, (void)b, (void)c, (void)d, (void)preference;
    *num_found = wanted > 0;
    if (wanted > 0) memset(found, 0, sizeof *found);
    return OK;
}
int cublasLtMatmulAlgoCheck(void *handle, void *description, void *a, void *b, void *c, void *d,
                            const void *algorithm, Found *found) {
    (void)handle, (void)description, (void)a, (void)b, (void)c, (void)d, (void)algorithm;
    memset(found, 0, sizeof *found);
    return OK;
}
int cublasLtMatmul(void) { return OK; }
