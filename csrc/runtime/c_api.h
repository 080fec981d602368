/* The C interface of lepton_rt: runs `.plan` files, without Python.
 *
 * A session may be used by several threads at once. Functions that can fail return a lepton_status;
 * lepton_error() then says, for the calling thread, what is wrong. Nothing is thrown. */
#ifndef LEPTON_RT_H
#define LEPTON_RT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LEPTON_API __attribute__((visibility("default")))
#define LEPTON_MAX_RANK 8

typedef enum {
  LEPTON_OK = 0,
  LEPTON_INVALID_MODEL = 1, /* the file is not a plan, or a damaged one */
  LEPTON_INVALID_INPUT = 2, /* what the caller passed does not fit */
  LEPTON_UNSUPPORTED = 3,   /* made for another version, build or instruction set */
  LEPTON_OUT_OF_MEMORY = 4,
  LEPTON_INTERNAL = 5
} lepton_status;

/* Element types: the numbers of ONNX's TensorProto.DataType. */
typedef enum {
  LEPTON_FLOAT32 = 1,
  LEPTON_UINT8 = 2,
  LEPTON_INT8 = 3,
  LEPTON_UINT16 = 4,
  LEPTON_INT16 = 5,
  LEPTON_INT32 = 6,
  LEPTON_INT64 = 7,
  LEPTON_BOOL = 9,
  LEPTON_FLOAT16 = 10,
  LEPTON_FLOAT64 = 11,
  LEPTON_UINT32 = 12,
  LEPTON_UINT64 = 13,
  LEPTON_BFLOAT16 = 16
} lepton_dtype;

/* What a model takes or gives. */
typedef struct {
  const char* name; /* lives as long as the session */
  int32_t dtype;
  int32_t rank;                  /* -1: any */
  int64_t dims[LEPTON_MAX_RANK]; /* -1: any */
} lepton_spec;

/* A dense tensor in row-major order. */
typedef struct {
  void* data;
  size_t bytes; /* of the memory at data */
  int32_t rank;
  int64_t dims[LEPTON_MAX_RANK];
} lepton_tensor;

typedef struct lepton_session lepton_session;

/* Opens a plan. threads: how many a run may use, the caller's included; 0 for all processors.
 * *session is NULL on failure; close it with lepton_close. */
LEPTON_API lepton_status lepton_open(const char* path, int threads, lepton_session** session);
LEPTON_API void lepton_close(lepton_session* session); /* NULL is fine */

LEPTON_API size_t lepton_num_inputs(const lepton_session* session);
LEPTON_API size_t lepton_num_outputs(const lepton_session* session);
/* LEPTON_INVALID_INPUT when there is no input or output of that number. An output's rank is -1:
 * shapes follow from those of the inputs. */
LEPTON_API lepton_status lepton_input(const lepton_session* session, size_t index,
                                      lepton_spec* spec);
LEPTON_API lepton_status lepton_output(const lepton_session* session, size_t index,
                                       lepton_spec* spec);

/* Fills rank, dims and bytes of the outputs for inputs of these shapes (data is not read); rank is
 * -1 and bytes 0 where they depend on data. */
LEPTON_API lepton_status lepton_shapes(lepton_session* session, const lepton_tensor* inputs,
                                       lepton_tensor* outputs);

/* Runs once. inputs: one tensor per input, in order, bytes being exactly its shape's. outputs: one
 * per output, with memory for the result; rank, dims and bytes are filled in. Where bytes is too
 * small for a result it fails with LEPTON_INVALID_INPUT and says in bytes what it needs. */
LEPTON_API lepton_status lepton_run(lepton_session* session, const lepton_tensor* inputs,
                                    lepton_tensor* outputs);

/* Loads a library of custom operators (lepton_op.h) for the rest of the process. It must be loaded
 * before a plan that uses its operators is opened. */
LEPTON_API lepton_status lepton_load_op_library(const char* path);

/* What went wrong in the last call of this thread that failed; "" before any did. */
LEPTON_API const char* lepton_error(void);
LEPTON_API const char* lepton_version(void);

#ifdef __cplusplus
}
#endif

#endif
