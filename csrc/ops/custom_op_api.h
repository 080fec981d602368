/* Native custom operators of lepton_rt: a shared library exports one function, lepton_ops, that
 * returns its table of operators. lepton_rt.load_op_library(path), or lepton_load_op_library in C,
 * loads it; models with these operators then run them as native steps.
 *
 * Two functions make an operator. `infer` tells the dtypes and shapes of the outputs from those of
 * the inputs; `run` computes. Both return 0, or anything else after writing to call->error why not.
 * They may be called by several threads at once, and must not throw. */
#ifndef LEPTON_OP_H
#define LEPTON_OP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LEPTON_OP_ABI 1
#define LEPTON_OP_MAX_RANK 8
#define LEPTON_OP_ERROR_BYTES 256

/* A dense tensor in row-major order. */
typedef struct {
  int32_t dtype; /* ONNX's TensorProto.DataType; 0: the operand is omitted */
  int32_t rank;
  int64_t dims[LEPTON_OP_MAX_RANK]; /* in infer, -1: not known before the model runs */
  void* data;                       /* NULL in infer; inputs must not be written to */
} lepton_op_tensor;

typedef enum { LEPTON_OP_INTS = 0, LEPTON_OP_FLOATS = 1, LEPTON_OP_STRING = 2 } lepton_op_kind;

/* An attribute of the model's node. A single number is a list of one; a list of strings is one
 * string, joined by semicolons. */
typedef struct {
  const char* name;
  int32_t kind;     /* lepton_op_kind */
  uint32_t count;   /* elements, or bytes of the string, which ends with a zero besides */
  const void* data; /* int64_t[], float[] or char[] */
} lepton_op_attribute;

typedef struct lepton_op_call {
  const lepton_op_tensor* inputs;
  lepton_op_tensor* outputs; /* infer fills in dtype, rank and dims; run writes to data */
  const lepton_op_attribute* attributes;
  int32_t num_inputs, num_outputs, num_attributes;
  /* Calls body(context, index) for every index in [0, count), on the threads of this run. In infer
   * it is NULL. */
  void (*parallel_for)(const struct lepton_op_call* call, int64_t count,
                       void (*body)(void* context, int64_t index), void* context);
  const void* host; /* lepton_rt's own */
  char* error;      /* LEPTON_OP_ERROR_BYTES for a message that ends with a zero */
} lepton_op_call;

typedef struct {
  const char* domain; /* neither ONNX's nor lepton_rt's own */
  const char* name;
  int (*infer)(const lepton_op_call* call);
  int (*run)(const lepton_op_call* call);
} lepton_op;

typedef struct {
  uint32_t abi; /* LEPTON_OP_ABI */
  uint32_t num_ops;
  const lepton_op* ops; /* lives as long as the process */
} lepton_op_library;

/* What a library exports. */
__attribute__((visibility("default"))) const lepton_op_library* lepton_ops(void);

#ifdef __cplusplus
}
#endif

#endif
