/* An NCCL for GPUs that are not there (see cuda.c), for tests. Ranks of all processes of one machine
 * meet in a file that all of them map, and really sum there; a rank that does not come is waited for
 * until an abort, as with the real one.
 *
 * What is different from one build to the next is defined on the command line:
 *   VERSION=23004      what ncclGetVersion says
 *   WITHOUT_ABORT      there is no ncclCommAbort
 *   NEVER_MEETS        ranks come together only in an abort
 *   LATER_ERROR=6      what ncclCommGetAsyncError says once the ranks have met
 *   ERROR_FILE="file"  .. and this file is there
 *   ERROR_RANK=1       .. to this rank alone
 *   FOLDER="folder"    where the files are, and nccl.log, which says what became of communicators */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION 22809
#endif

enum { OK = 0, SYSTEM = 2, REMOTE = 6, IN_PROGRESS = 7 };
enum { MAX_RANKS = 8, BLOCK = 64 << 10 };

typedef struct { char bytes[128]; } Id;

/* What all ranks of a group map. */
typedef struct {
    atomic_int joined, gone;
    atomic_uint arrived, generation;
    _Alignas(64) char blocks[MAX_RANKS][BLOCK];
} Shared;

typedef struct {
    int rank, world_size;
    Shared *shared;
    atomic_int aborted;
    /* A call was made since somebody asked how it goes. */
    atomic_int busy;
} Comm;

typedef enum { SUM, GATHER, BROADCAST } What;

typedef struct {
    Comm *comm;
    What what;
    const void *from;
    void *to;
    size_t bytes;
    int type, root;
} Work;

static void note(const char *what, int rank) {
    FILE *log = fopen(FOLDER "/nccl.log", "a");
    if (log) {
        fprintf(log, "%s %d\n", what, rank);
        fclose(log);
    }
}

int ncclGetVersion(int *version) { *version = VERSION; return OK; }
const char *ncclGetErrorString(int status) {
    return status == REMOTE ? "a pretended rank is gone" : "a pretended error";
}
const char *ncclGetLastError(const Comm *comm) { (void)comm; return ""; }
int ncclGroupStart(void) { return OK; }
int ncclGroupEnd(void) { return OK; }

/* The name of a file that nobody else has. */
int ncclGetUniqueId(Id *id) {
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, FOLDER "/id-XXXXXX");
    int file = mkstemp(id->bytes);
    if (file < 0 || ftruncate(file, sizeof(Shared))) return SYSTEM;
    close(file);
    return OK;
}

int ncclCommInitRankConfig(Comm **out, int world_size, Id id, int rank, void *config) {
    (void)config;
    if (world_size > MAX_RANKS) return SYSTEM;
    int file = open(id.bytes, O_RDWR);
    if (file < 0) return SYSTEM;
    void *shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return SYSTEM;
    Comm *comm = calloc(1, sizeof(Comm));
    comm->rank = rank;
    comm->world_size = world_size;
    comm->shared = shared;
    note("made", rank);
    /* The last one removes the name. */
    if (atomic_fetch_add(&comm->shared->joined, 1) + 1 == world_size) unlink(id.bytes);
    *out = comm;
    return IN_PROGRESS;
}

static int later_error(int rank) {
    (void)rank;
#ifdef ERROR_RANK
    if (rank != ERROR_RANK) return OK;
#endif
#ifdef ERROR_FILE
    if (access(ERROR_FILE, F_OK)) return OK;
#endif
#ifdef LATER_ERROR
    return LATER_ERROR;
#else
    return OK;
#endif
}

int ncclCommGetAsyncError(Comm *comm, int *status) {
#ifdef NEVER_MEETS
    *status = IN_PROGRESS;
    return OK;
#endif
    Shared *shared = comm->shared;
    if (atomic_load(&shared->joined) < comm->world_size) *status = IN_PROGRESS;
    else if (atomic_load(&shared->gone)) *status = REMOTE;
    else if (atomic_exchange(&comm->busy, 0)) *status = IN_PROGRESS;
    else *status = later_error(comm->rank);
    return OK;
}

#ifndef WITHOUT_ABORT
/* What is queued may still name it, so its memory stays. */
int ncclCommAbort(Comm *comm) {
    note("aborted", comm->rank);
    atomic_store(&comm->aborted, 1);
    atomic_store(&comm->shared->gone, 1);
    return OK;
}
#endif

/* Waits until all ranks are here, or for the abort: 0 then. */
static int meet(Comm *comm) {
    Shared *shared = comm->shared;
    unsigned generation = atomic_load(&shared->generation);
    if (atomic_fetch_add(&shared->arrived, 1) + 1 == (unsigned)comm->world_size) {
        atomic_store(&shared->arrived, 0);
        atomic_fetch_add(&shared->generation, 1);
        return 1;
    }
    while (atomic_load(&shared->generation) == generation) {
        if (atomic_load(&comm->aborted)) return 0;
        usleep(50);
    }
    return 1;
}

static float widened(int type, const void *values, size_t i) {
    float value;
    uint32_t bits;
    if (type == 7) return ((const float *)values)[i];
    bits = (uint32_t)((const uint16_t *)values)[i] << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void store(int type, void *values, size_t i, float value) {
    uint32_t bits;
    if (type == 7) {
        ((float *)values)[i] = value;
        return;
    }
    memcpy(&bits, &value, sizeof bits);
    ((uint16_t *)values)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* A graph runs the same work again and again, so it is never freed. */
static void run(void *argument) {
    const Work *work = argument;
    Comm *comm = work->comm;
    Shared *shared = comm->shared;
    for (size_t begin = 0; begin < work->bytes && !atomic_load(&comm->aborted); begin += BLOCK) {
        size_t bytes = work->bytes - begin < BLOCK ? work->bytes - begin : BLOCK;
        memcpy(shared->blocks[comm->rank], (const char *)work->from + begin, bytes);
        if (!meet(comm)) return;
        char *to = (char *)work->to + begin;
        if (work->what == BROADCAST) memcpy(to, shared->blocks[work->root], bytes);
        for (int rank = 0; rank < comm->world_size && work->what == GATHER; rank++)
            memcpy(to + rank * work->bytes, shared->blocks[rank], bytes);
        size_t len = work->what == SUM ? bytes / (work->type == 7 ? 4 : 2) : 0;
        for (size_t i = 0; i < len; i++) {
            float sum = 0;
            for (int rank = 0; rank < comm->world_size; rank++)
                sum += widened(work->type, shared->blocks[rank], i);
            store(work->type, to, i, sum);
        }
        if (!meet(comm)) return;
    }
}

static int queue(Work work, void *stream) {
    typedef int (*Launch)(void *, void (*)(void *), void *);
    void *driver = dlopen("libcuda.so", RTLD_NOW);
    Launch launch = driver ? (Launch)dlsym(driver, "cuLaunchHostFunc") : NULL;
    Work *kept = malloc(sizeof *kept);
    *kept = work;
    atomic_store(&work.comm->busy, 1);
    return launch && launch(stream, run, kept) == OK ? IN_PROGRESS : SYSTEM;
}

static size_t size_of(int type) { return type == 5 ? 8 : type == 9 ? 2 : 4; }

int ncclAllReduce(const void *from, void *to, size_t len, int type, int op, Comm *comm, void *stream) {
    (void)op;
    return queue((Work){comm, SUM, from, to, len * size_of(type), type, 0}, stream);
}
int ncclAllGather(const void *from, void *to, size_t len, int type, Comm *comm, void *stream) {
    return queue((Work){comm, GATHER, from, to, len * size_of(type), type, 0}, stream);
}
int ncclBroadcast(const void *from, void *to, size_t len, int type, int root, Comm *comm, void *stream) {
    return queue((Work){comm, BROADCAST, from, to, len * size_of(type), type, root}, stream);
}
