/* A libnvidia-ml.so.1 without a driver: the calls that workers/gpus and workers/preflight make through nvidia-ml-py.
 *
 * Types, symbol names, error numbers and event layout are those of NVIDIA's nvml.h. What the GPUs say is read anew at
 * every call from the file that NVML_STAND_IN names, one value a line: "GPU FIELD NUMBER", GPU a number or "all"; a line
 * further down wins. "0 use -3" is the error 3 (not supported) instead of a value; "all error 15" fails every call on
 * that GPU. "all count 8" and "all init 9" are the machine's; without the variable no driver is loaded (9). NVML_STAND_IN.events holds Xid errors, "GPU CODE" a line;
 * each is handed out once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { int index; } Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { Device *device; unsigned long long type, data; unsigned int gpu_instance, compute_instance; } Event;

static Device devices[64];
static long given_out;

static long long value(int gpu, const char *field, long long otherwise) {
    FILE *file = fopen(getenv("NVML_STAND_IN") ? getenv("NVML_STAND_IN") : "", "r");
    char line[256], whose[64], name[64];
    long long number, found = otherwise;
    if (!file) return otherwise;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%63s %63s %lld", whose, name, &number) == 3 && !strcmp(name, field))
            if (!strcmp(whose, "all") || (gpu >= 0 && atoi(whose) == gpu && whose[0] != 'a')) found = number;
    fclose(file);
    return found;
}

/* 0 with the value in *out, else the error's number. */
static int field(Device *device, const char *name, long long otherwise, long long *out) {
    int error = (int)value(device->index, "error", 0);
    if (error) return error;
    if (value(device->index, "hang", 0)) sleep((unsigned int)value(device->index, "hang", 0));
    *out = value(device->index, name, otherwise);
    return *out < 0 ? (int)-*out : 0;
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return getenv("NVML_STAND_IN") ? (int)value(-1, "init", 0) : 9; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int error) { (void)error; return "an error of the stand-in"; }
int nvmlSystemGetDriverVersion(char *text, unsigned int size) { snprintf(text, size, "580.65.06"); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = (unsigned int)value(-1, "count", 8); return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device **device) {
    if (index >= (unsigned int)value(-1, "count", 8)) return 2;
    if (value((int)index, "error", 0)) return (int)value((int)index, "error", 0);
    devices[index].index = (int)index;
    *device = &devices[index];
    return 0;
}

int nvmlDeviceGetIndex(Device *device, unsigned int *index) {
    long long ignored;
    int error = field(device, "index", 0, &ignored);
    *index = (unsigned int)device->index;
    return error;
}

int nvmlDeviceGetName(Device *device, char *name, unsigned int size) {
    (void)device;
    snprintf(name, size, "NVIDIA H200");
    return 0;
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned int size) {
    snprintf(uuid, size, "GPU-0000000%d-aaaa-bbbb-cccc-000000000000", device->index);
    return 0;
}

int nvmlDeviceGetMigMode(Device *device, unsigned int *now, unsigned int *pending) {
    (void)device;
    *now = *pending = 0;
    return 0;
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *use) {
    long long found;
    int error = field(device, "use", 0, &found);
    use->gpu = (unsigned int)found;
    use->memory = 0;
    return error;
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    long long used;
    int error = field(device, "used", 75161927680LL, &used);
    memory->total = 150323855360ULL;
    memory->used = (unsigned long long)used;
    memory->free = memory->total - memory->used;
    return error;
}

static int small(Device *device, const char *name, long long otherwise, unsigned int *out) {
    long long found;
    int error = field(device, name, otherwise, &found);
    *out = (unsigned int)found;
    return error;
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned int *milliwatts) { return small(device, "power", 120000, milliwatts); }
int nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned int *milliwatts) {
    return small(device, "limit", 700000, milliwatts);
}
int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned int *celsius) {
    return sensor ? 2 : small(device, "celsius", 41, celsius);
}

int nvmlDeviceGetTotalEccErrors(Device *device, int kind, int counter, unsigned long long *count) {
    long long found;
    int error = counter ? 2 : field(device, kind ? "uncorrected" : "corrected", 0, &found);
    *count = (unsigned long long)found;
    return error;
}

int nvmlEventSetCreate(void **set) { *set = &given_out; given_out = 0; return (int)value(-1, "eventset", 0); }
int nvmlEventSetFree(void *set) { (void)set; return 0; }
int nvmlDeviceRegisterEvents(Device *device, unsigned long long types, void *set) {
    (void)set;
    return types == 8 ? (int)value(device->index, "register", 0) : 3;
}

int nvmlEventSetWait_v2(void *set, Event *event, unsigned int milliseconds) {
    char path[4096], line[256];
    int gpu;
    unsigned long long code;
    (void)set;
    if (value(-1, "wait", 0)) return (int)value(-1, "wait", 0);
    snprintf(path, sizeof path, "%s.events", getenv("NVML_STAND_IN"));
    for (unsigned int waited = 0;; waited += 10) {
        FILE *file = fopen(path, "r");
        if (file) {
            fseek(file, given_out, SEEK_SET);
            if (fgets(line, sizeof line, file) && sscanf(line, "%d %llu", &gpu, &code) == 2) {
                given_out = ftell(file);
                fclose(file);
                *event = (Event){&devices[gpu], 8, code, 0xFFFFFFFF, 0xFFFFFFFF};
                return 0;
            }
            fclose(file);
        }
        if (waited >= milliseconds) return 10;
        usleep(10000);
    }
}
