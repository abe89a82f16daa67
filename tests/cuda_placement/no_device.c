/* The answers of the CUDA libraries while a session is created, as with one device of compute capability 9.0.
   To be preloaded. Device memory is host memory, and nothing is computed. */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

static int handle; /* the value of every handle, which nothing dereferences */

cudaError_t cudaGetLastError(void) { return cudaSuccess; }
cudaError_t cudaPeekAtLastError(void) { return cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize(void) { return cudaSuccess; }

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "none");
    properties->major = 9;
    properties->multiProcessorCount = 132;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->sharedMemPerBlock = 48 << 10;
    properties->sharedMemPerBlockOptin = 227 << 10;
    properties->totalGlobalMem = 80UL << 30;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    *free = *total = 80UL << 30;
    return cudaSuccess;
}

static cudaError_t allocate(void **memory, size_t size)
{
    *memory = malloc(size);
    return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaMalloc(void **memory, size_t size) { return allocate(memory, size); }
cudaError_t cudaMallocHost(void **memory, size_t size) { return allocate(memory, size); }
cudaError_t cudaHostAlloc(void **memory, size_t size, unsigned int flags) { return allocate(memory, size); }

cudaError_t cudaFree(void *memory)
{
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory) { return cudaFree(memory); }

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind)
{
    memcpy(to, from, size);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    return cudaMemcpy(to, from, size, kind);
}

cudaError_t cudaMemset(void *memory, int value, size_t size)
{
    memset(memory, value, size);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t size, cudaStream_t stream)
{
    return cudaMemset(memory, value, size);
}

static int create(void *created)
{
    *(void **)created = &handle;
    return 0;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return create(stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) { return create(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags) { return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *event) { return create(event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) { return create(event); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return cudaSuccess; }

/* cuBLAS and cuDNN, whose headers need more packages: every status is an int, every handle a pointer, 0 is success */
int cublasCreate_v2(void **created) { return create(created); }
int cublasDestroy_v2(void *created) { return 0; }
int cublasSetStream_v2(void *created, cudaStream_t stream) { return 0; }
int cublasSetMathMode(void *created, int mode) { return 0; }
int cublasLtCreate(void **created) { return create(created); }
int cublasLtDestroy(void *created) { return 0; }
int cudnnCreate(void **created) { return create(created); }
int cudnnDestroy(void *created) { return 0; }
int cudnnSetStream(void *created, cudaStream_t stream) { return 0; }
