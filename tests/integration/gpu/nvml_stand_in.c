/* A stand-in for libnvidia-ml.so.1: answers what the file says that STAND_IN_NVML names, read anew at each call.
 *
 * Lines of the file, numbers in the units of the fields; -1 stands for "not supported", a code for an NVML error:
 *   init CODE                         what nvmlInit and every later call answer; 0: they work
 *   sleep MILLISECONDS                how long each look for a device blocks
 *   gpu UUID TOTAL_MIB USED_MIB CELSIUS MILLIWATTS PERCENT CORRECTED UNCORRECTED MIG CODE NAME...
 *   mig PARENT_UUID UUID TOTAL_MIB USED_MIB
 *   process UUID PID MIB
 * As with the real library, devices are found by nvmlInit only, and one that was lost stays lost until the next.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
enum { MOST = 32, TEXT = 96 };

struct device {
    char uuid[TEXT], parent[TEXT], name[TEXT];
    long total, used, celsius, milliwatts, percent, corrected, uncorrected, mig, code;
    int index;
};
struct process { char uuid[TEXT]; unsigned pid; long mib; };
struct machine {
    int init, sleep_ms, devices, processes;
    struct device device[MOST];
    struct process process[MOST];
};
struct memory { unsigned long long total, free, used; };
struct utilization { unsigned gpu, memory; };
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
struct process_info { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };

static struct machine now;
static char found[MOST][TEXT]; /* uuids of the GPUs that nvmlInit found, by index */
static int lost[MOST], count, sessions;

static void look(void) {
    char line[512];
    memset(&now, 0, sizeof now);
    FILE *file = fopen(getenv("STAND_IN_NVML"), "r");
    if (!file) { now.init = 9; return; }
    while (fgets(line, sizeof line, file)) {
        struct device *d = &now.device[now.devices < MOST ? now.devices : MOST - 1];
        struct process *p = &now.process[now.processes < MOST ? now.processes : MOST - 1];
        if (sscanf(line, "init %d", &now.init) == 1 || sscanf(line, "sleep %d", &now.sleep_ms) == 1) continue;
        if (sscanf(line, "gpu %95s %ld %ld %ld %ld %ld %ld %ld %ld %ld %95[^\n]", d->uuid, &d->total, &d->used, &d->celsius,
                   &d->milliwatts, &d->percent, &d->corrected, &d->uncorrected, &d->mig, &d->code, d->name) == 11) {
            now.devices++;
        } else if (sscanf(line, "mig %95s %95s %ld %ld", d->parent, d->uuid, &d->total, &d->used) == 4) {
            d->celsius = d->milliwatts = d->percent = d->corrected = d->uncorrected = d->mig = -1;
            strcpy(d->name, "Stand-in MIG 1g");
            now.devices++;
        } else if (sscanf(line, "process %95s %u %ld", p->uuid, &p->pid, &p->mib) == 3) {
            now.processes++;
        }
    }
    fclose(file);
}

static struct device *named(const char *uuid) {
    for (int i = 0; i < now.devices; i++)
        if (!strcmp(now.device[i].uuid, uuid)) return &now.device[i];
    return NULL;
}

/* The device behind a handle, and in `code` why there is none. GPU i is the handle i + 1, place m on it 100 * (i + 1) + m. */
static struct device *behind(void *handle, int *code) {
    long number = (long)handle;
    int index = (number >= 100 ? number / 100 : number) - 1;
    look();
    *code = now.init ? now.init : sessions ? OK : UNINITIALIZED;
    if (*code) return NULL;
    struct device *d = named(found[index]);
    if (!d || d->code == GPU_IS_LOST) lost[index] = 1;
    *code = lost[index] ? GPU_IS_LOST : d->code;
    if (*code) return NULL;
    for (int i = 0, m = 0; number >= 100 && i < now.devices; i++)
        if (!strcmp(now.device[i].parent, found[index]) && m++ == number % 100) return &now.device[i];
    if (number >= 100) *code = NOT_FOUND;
    return number >= 100 ? NULL : d;
}

#define DEVICE_OR_FAIL int code; struct device *d = behind(handle, &code); if (!d) return code
#define SUPPORTED(value) if ((value) < 0) return NOT_SUPPORTED

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    look();
    if (now.init) return now.init;
    if (!sessions++) {
        memset(lost, 0, sizeof lost);
        count = 0;
        for (int i = 0; i < now.devices; i++)
            if (!now.device[i].parent[0]) strcpy(found[count++], now.device[i].uuid);
    }
    return OK;
}
int nvmlShutdown(void) {
    if (!sessions) return UNINITIALIZED;
    sessions--;
    return OK;
}
const char *nvmlErrorString(int code) { (void)code; return "stand-in error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "570.86.15"); return OK; }
int nvmlSystemGetNVMLVersion(char *text, unsigned size) { snprintf(text, size, "12.570.86.15"); return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12080; return OK; }
int nvmlDeviceGetCount_v2(unsigned *number) {
    look();
    usleep(1000 * now.sleep_ms);
    if (now.init || !sessions) return now.init ? now.init : UNINITIALIZED;
    *number = count;
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    int code;
    *handle = (void *)(long)(index + 1);
    behind(*handle, &code);
    return code;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    DEVICE_OR_FAIL;
    snprintf(text, size, "%s", d->uuid);
    return OK;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    DEVICE_OR_FAIL;
    snprintf(text, size, "%s", d->name);
    return OK;
}
int nvmlDeviceGetPciInfo_v3(void *handle, struct pci *pci) {
    DEVICE_OR_FAIL;
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02lX:00.0", (long)handle);
    return OK;
}
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    DEVICE_OR_FAIL;
    SUPPORTED(d->total);
    memory->total = (unsigned long long)d->total << 20;
    memory->used = (unsigned long long)d->used << 20;
    memory->free = memory->total - memory->used;
    return OK;
}
int nvmlDeviceGetUtilizationRates(void *handle, struct utilization *rates) {
    DEVICE_OR_FAIL;
    SUPPORTED(d->percent);
    rates->gpu = d->percent;
    rates->memory = d->percent / 2;
    return OK;
}
int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *celsius) {
    (void)sensor;
    DEVICE_OR_FAIL;
    SUPPORTED(d->celsius);
    *celsius = d->celsius;
    return OK;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    DEVICE_OR_FAIL;
    SUPPORTED(d->milliwatts);
    *milliwatts = d->milliwatts;
    return OK;
}
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) {
    DEVICE_OR_FAIL;
    SUPPORTED(d->milliwatts);
    *milliwatts = 700000;
    return OK;
}
int nvmlDeviceGetTotalEccErrors(void *handle, unsigned kind, unsigned counter, unsigned long long *errors) {
    (void)counter;
    DEVICE_OR_FAIL;
    SUPPORTED(kind ? d->uncorrected : d->corrected);
    *errors = kind ? d->uncorrected : d->corrected;
    return OK;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    DEVICE_OR_FAIL;
    SUPPORTED(d->mig);
    *current = *pending = d->mig;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *number) {
    DEVICE_OR_FAIL;
    *number = 7;
    return OK;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **instance) {
    int code;
    *instance = (void *)(100 * (long)handle + index);
    behind(*instance, &code);
    return code;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *number, struct process_info *infos) {
    DEVICE_OR_FAIL;
    unsigned room = *number;
    *number = 0;
    for (int i = 0; i < now.processes; i++) {
        struct process *p = &now.process[i];
        if (strcmp(p->uuid, d->uuid)) continue;
        if (*number < room) {
            unsigned long long used = p->mib < 0 ? ~0ULL : (unsigned long long)p->mib << 20; /* all ones: not told */
            infos[*number] = (struct process_info){p->pid, used, ~0U, ~0U};
        }
        ++*number;
    }
    return *number > room ? INSUFFICIENT_SIZE : OK;
}
