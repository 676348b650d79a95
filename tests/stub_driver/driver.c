/* A CUDA driver without a device: memory calls act on host memory, streams are queues that threads of their own work off.

   What a real driver leaves open is decided against the caller. With `lazy=1` a stream does nothing until somebody
   waits for it, so that a result read too early, or a buffer used again too early, is wrong every time. With `lazy=0` a
   stream starts at once, beside the caller. Addresses are checked: a copy must stay inside one allocation of the kind
   that its name says.

   stub_configure("devices=8.6:1073741824,9.0:2147483648 init=0 version=13000 lazy=0") describes the machine: compute
   capability and bytes of each device, what cuInit answers, the CUDA version of the driver. The environment variable
   VSC_STUB_DRIVER, same format, is read when the library is loaded. stub_count(NAME) says what has happened so far. */
#define _GNU_SOURCE
#include <cuda.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEVICES 16
#define MAX_ALLOCATIONS 4096
#define MAX_CONTEXTS 32

struct CUctx_st {
    int device, major, minor;
    size_t total, used;
};

typedef struct Marker {
    bool done;
    CUstream stream;
} Marker;

typedef struct Op {
    enum { COPY, SET, RECORD, WAIT, CALL } kind;
    int direction;
    void *to;
    const void *from;
    size_t size;
    unsigned char value;
    Marker *marker;
    CUhostFn function;
    struct Op *next;
} Op;

typedef struct {
    Op *first, *last;
} Queue;

struct CUstream_st {
    Queue queue;
    size_t num_queued, num_demanded, num_done;
    struct CUgraph_st *capture;
    bool destroyed;
};

struct CUevent_st {
    Marker *marker;
};

struct CUgraph_st {
    Queue queue;
};

typedef struct {
    char *base;
    size_t size;
    CUcontext context;
    bool on_device;
} Allocation;

static struct CUctx_st devices[MAX_DEVICES];
static int num_devices = 1, init_answer, driver_version = CUDA_VERSION, is_lazy;
static Allocation allocations[MAX_ALLOCATIONS];
static _Thread_local CUcontext stack[MAX_CONTEXTS];
static _Thread_local int depth;
static CUresult failure; /* of an asynchronous operation: every later wait reports it, as on a device */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct {
    const char *name;
    long long value;
} counts[] = {{"bytes_htod", 0}, {"bytes_dtoh", 0},     {"bytes_dtod", 0},      {"num_device_allocations", 0},
              {"num_pinned_allocations", 0}, {"num_graph_launches", 0}, {"num_calls", 0}};
enum { HTOD, DTOH, DTOD, /* directions of copies, too */ DEVICE_ALLOCATIONS, PINNED_ALLOCATIONS, GRAPH_LAUNCHES, CALLS };

/* The machine */

__attribute__((visibility("default"))) void stub_configure(const char *text) {
    pthread_mutex_lock(&lock);
    char *copy = strdup(text), *rest = NULL;
    for (char *word = strtok_r(copy, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        sscanf(word, "init=%d", &init_answer);
        sscanf(word, "version=%d", &driver_version);
        sscanf(word, "lazy=%d", &is_lazy);
        if (strncmp(word, "devices=", 8) == 0) {
            num_devices = 0;
            char *more = NULL;
            for (char *item = strtok_r(word + 8, ",", &more); item != NULL; item = strtok_r(NULL, ",", &more)) {
                struct CUctx_st *device = &devices[num_devices];
                device->device = num_devices++;
                sscanf(item, "%d.%d:%zu", &device->major, &device->minor, &device->total);
            }
        }
    }
    free(copy);
    failure = CUDA_SUCCESS;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (i != DEVICE_ALLOCATIONS && i != PINNED_ALLOCATIONS) counts[i].value = 0;
    pthread_mutex_unlock(&lock);
}

__attribute__((visibility("default"))) long long stub_count(const char *name) {
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (strcmp(counts[i].name, name) == 0) return counts[i].value;
    return -1;
}

__attribute__((constructor)) static void configure_from_environment(void) {
    stub_configure("devices=8.6:1073741824");
    if (getenv("VSC_STUB_DRIVER") != NULL) stub_configure(getenv("VSC_STUB_DRIVER"));
}

CUresult cuInit(unsigned int flags) { return flags ? CUDA_ERROR_INVALID_VALUE : (CUresult)init_answer; }

CUresult cuDriverGetVersion(int *version) {
    *version = driver_version;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **text) {
    switch (error) {
        case CUDA_SUCCESS: *text = "CUDA_SUCCESS"; break;
        case CUDA_ERROR_INVALID_VALUE: *text = "CUDA_ERROR_INVALID_VALUE"; break;
        case CUDA_ERROR_OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case CUDA_ERROR_NO_DEVICE: *text = "CUDA_ERROR_NO_DEVICE"; break;
        case CUDA_ERROR_INVALID_DEVICE: *text = "CUDA_ERROR_INVALID_DEVICE"; break;
        case CUDA_ERROR_INVALID_CONTEXT: *text = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case CUDA_ERROR_ILLEGAL_ADDRESS: *text = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
        case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: *text = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; break;
        case CUDA_ERROR_NOT_SUPPORTED: *text = "CUDA_ERROR_NOT_SUPPORTED"; break;
        default: *text = "CUDA_ERROR_UNKNOWN";
    }
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) { return cuGetErrorName(error, text); }

CUresult cuDeviceGetCount(int *count) {
    *count = num_devices;
    return init_answer;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < num_devices ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
    snprintf(name, size, "Stub %d.%d", devices[device].major, devices[device].minor);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
    *bytes = devices[device].total;
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    *major = devices[device].major;
    *minor = devices[device].minor;
    return CUDA_SUCCESS;
}

/* Contexts: the primary one of each device, current per thread */

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = &devices[device];
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    (void)device;
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext context) {
    if (depth == MAX_CONTEXTS) return CUDA_ERROR_INVALID_CONTEXT;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext *context) {
    if (depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
    *context = stack[--depth];
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = depth ? stack[depth - 1] : NULL;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device) {
    if (depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
    *device = stack[depth - 1]->device;
    return CUDA_SUCCESS;
}

/* Memory */

static CUresult allocate(void **address, size_t size, bool on_device) {
    if (depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (size == 0) return CUDA_ERROR_INVALID_VALUE;
    CUresult answer = CUDA_ERROR_OUT_OF_MEMORY;
    CUcontext context = stack[depth - 1];
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_ALLOCATIONS && !(on_device && context->used + size > context->total); i++) {
        if (allocations[i].base != NULL) continue;
        *address = aligned_alloc(256, (size + 255) / 256 * 256);
        memset(*address, 0xA5, size); /* nothing may rely on fresh memory */
        allocations[i] = (Allocation){*address, size, context, on_device};
        context->used += on_device ? size : 0;
        counts[on_device ? DEVICE_ALLOCATIONS : PINNED_ALLOCATIONS].value++;
        answer = CUDA_SUCCESS;
        break;
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

static CUresult release(void *address, bool on_device) {
    CUresult answer = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_ALLOCATIONS; i++) {
        if (allocations[i].base != address || allocations[i].on_device != on_device) continue;
        memset(address, 0x5A, allocations[i].size);
        allocations[i].context->used -= on_device ? allocations[i].size : 0;
        allocations[i].base = NULL;
        counts[on_device ? DEVICE_ALLOCATIONS : PINNED_ALLOCATIONS].value--;
        free(address);
        answer = CUDA_SUCCESS;
        break;
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

static bool is_inside(const void *address, size_t size, bool on_device) {
    const char *first = address;
    for (int i = 0; i < MAX_ALLOCATIONS; i++) {
        Allocation *held = &allocations[i];
        if (held->base == NULL || held->on_device != on_device) continue;
        if (first >= held->base && first + size <= held->base + held->size) return true;
    }
    return false;
}

CUresult cuMemAlloc(CUdeviceptr *address, size_t size) { return allocate((void **)address, size, true); }
CUresult cuMemFree(CUdeviceptr address) { return release((void *)address, true); }
CUresult cuMemFreeHost(void *address) { return release(address, false); }

CUresult cuMemHostAlloc(void **address, size_t size, unsigned int flags) {
    (void)flags;
    return allocate(address, size, false);
}

CUresult cuMemGetInfo(size_t *unused, size_t *total) {
    if (depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
    *total = stack[depth - 1]->total;
    *unused = *total - stack[depth - 1]->used;
    return CUDA_SUCCESS;
}

/* Streams: one thread works off each queue, as far as somebody demands */

static void append(Queue *queue, const Op *op) {
    Op *copy = malloc(sizeof *copy);
    *copy = *op;
    copy->next = NULL;
    *(queue->last != NULL ? &queue->last->next : &queue->first) = copy;
    queue->last = copy;
}

static void demand(CUstream stream) {
    stream->num_demanded = stream->num_queued;
    pthread_cond_broadcast(&changed);
}

static bool is_valid(const Op *op) {
    if (op->kind == SET) return is_inside(op->to, op->size, true);
    if (op->kind != COPY) return true;
    bool fits = is_inside(op->to, op->size, op->direction != DTOH);
    return fits && is_inside(op->from, op->size, op->direction != HTOD);
}

static void run(const Op *op) { /* with the lock held, let go where another stream or the caller's code must run */
    if (!is_valid(op)) { /* freed while the copy waited for its turn */
        failure = CUDA_ERROR_ILLEGAL_ADDRESS;
        return;
    }
    switch (op->kind) {
        case COPY: memcpy(op->to, op->from, op->size); break;
        case SET: memset(op->to, op->value, op->size); break;
        case RECORD: op->marker->done = true; break;
        case WAIT:
            if (!op->marker->done) demand(op->marker->stream);
            while (!op->marker->done) pthread_cond_wait(&changed, &lock);
            break;
        case CALL:
            pthread_mutex_unlock(&lock);
            op->function(op->to);
            pthread_mutex_lock(&lock);
    }
}

static void *work_off(void *argument) {
    CUstream stream = argument;
    pthread_mutex_lock(&lock);
    while (true) {
        while (stream->num_done == stream->num_demanded && !stream->destroyed) pthread_cond_wait(&changed, &lock);
        if (stream->num_done == stream->num_queued) break;
        Op *op = stream->queue.first;
        run(op);
        stream->queue.first = op->next;
        if (op->next == NULL) stream->queue.last = NULL;
        free(op);
        stream->num_done++;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return NULL; /* a destroyed stream stays as it is: markers of events may point to it */
}

static CUresult submit(CUstream stream, const Op *op) {
    if (stream == NULL) return CUDA_ERROR_NOT_SUPPORTED; /* the default stream: the engine does not use it */
    if (depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&lock);
    if (stream->capture != NULL) {
        append(&stream->capture->queue, op);
    } else {
        append(&stream->queue, op);
        stream->num_queued++;
        if (!is_lazy) demand(stream);
    }
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
    (void)flags;
    if (depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
    *stream = calloc(1, sizeof **stream);
    pthread_t thread;
    pthread_create(&thread, NULL, work_off, *stream);
    pthread_detach(thread);
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream) {
    pthread_mutex_lock(&lock);
    stream->destroyed = true;
    demand(stream);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    if (stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD) return failure; /* idle */
    pthread_mutex_lock(&lock);
    demand(stream);
    size_t goal = stream->num_queued;
    while (stream->num_done < goal) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return failure;
}

CUresult cuEventCreate(CUevent *event, unsigned int flags) {
    (void)flags;
    *event = calloc(1, sizeof **event);
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
    free(event);
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    event->marker = calloc(1, sizeof *event->marker);
    event->marker->stream = stream;
    return submit(stream, &(Op){.kind = RECORD, .marker = event->marker});
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags) {
    (void)flags;
    return event->marker == NULL ? CUDA_SUCCESS : submit(stream, &(Op){.kind = WAIT, .marker = event->marker});
}

CUresult cuEventSynchronize(CUevent event) {
    pthread_mutex_lock(&lock);
    if (event->marker != NULL && !event->marker->done) demand(event->marker->stream);
    while (event->marker != NULL && !event->marker->done) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return failure;
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *argument) {
    counts[CALLS].value++;
    return submit(stream, &(Op){.kind = CALL, .function = function, .to = argument});
}

static CUresult copy(CUstream stream, void *to, const void *from, size_t size, int direction) {
    Op op = {.kind = COPY, .direction = direction, .to = to, .from = from, .size = size};
    pthread_mutex_lock(&lock);
    bool fits = is_valid(&op);
    counts[direction].value += fits ? (long long)size : 0;
    pthread_mutex_unlock(&lock);
    return fits ? submit(stream, &op) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    return copy(stream, (void *)to, from, size, HTOD);
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    return copy(stream, to, (const void *)from, size, DTOH);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    return copy(stream, (void *)to, (const void *)from, size, DTOD);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream) {
    return submit(stream, &(Op){.kind = SET, .to = (void *)to, .value = value, .size = size});
}

/* The copies that wait: for tests that put frames on the device and look at what is there */

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size) {
    if (!is_inside((void *)to, size, true)) return CUDA_ERROR_INVALID_VALUE;
    memcpy((void *)to, from, size);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size) {
    if (!is_inside((void *)from, size, true)) return CUDA_ERROR_INVALID_VALUE;
    memcpy(to, (void *)from, size);
    return CUDA_SUCCESS;
}

/* Graphs: what was submitted while a stream captured, submitted again at each launch */

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
    (void)mode;
    if (stream->capture != NULL) return CUDA_ERROR_ILLEGAL_STATE;
    stream->capture = calloc(1, sizeof *stream->capture);
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    *graph = stream->capture;
    stream->capture = NULL;
    return *graph != NULL ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_STATE;
}

CUresult cuGraphInstantiate(CUgraphExec *instance, CUgraph graph, unsigned long long flags) {
    (void)flags;
    struct CUgraph_st *copy = calloc(1, sizeof *copy);
    for (Op *op = graph->queue.first; op != NULL; op = op->next) append(&copy->queue, op);
    *instance = (CUgraphExec)copy;
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec instance, CUstream stream) {
    counts[GRAPH_LAUNCHES].value++;
    CUresult answer = CUDA_SUCCESS;
    for (Op *op = ((CUgraph)instance)->queue.first; op != NULL && answer == CUDA_SUCCESS; op = op->next)
        answer = submit(stream, op);
    return answer;
}

CUresult cuGraphDestroy(CUgraph graph) {
    while (graph->queue.first != NULL) {
        Op *op = graph->queue.first;
        graph->queue.first = op->next;
        free(op);
    }
    free(graph);
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec instance) { return cuGraphDestroy((CUgraph)instance); }
