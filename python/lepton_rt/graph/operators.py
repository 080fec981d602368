"""The standard operators of the house opset: operands and attributes.

What the onnx package's schemas say, kept here so that `.lepton` files are held to the same rules
without importing onnx; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from lepton_rt.graph.ir import Attr, Graph


@dataclass(frozen=True)
class Operator:
    """inputs, outputs: a letter per operand (r required, o optional, v one or more, w any number).

    attrs: name → kind (i f s integer, float, string; I F S lists of them; t tensor, g graph).
    """

    inputs: str
    outputs: str
    attrs: dict[str, str]

    def accepts_inputs(self, names: list[str]) -> bool:
        return _accepts(self.inputs, names)

    def accepts_outputs(self, names: list[str]) -> bool:
        return _accepts(self.outputs, names)

    def accepts_attr(self, name: str, value: Attr) -> bool:
        kind = self.attrs.get(name)
        return kind is not None and _is_kind(kind, value)


def _accepts(letters: str, names: list[str]) -> bool:
    variadic = letters[-1:] in ("v", "w")
    if len(names) > len(letters) and not variadic:
        return False
    for i, letter in enumerate(letters):
        given = i < len(names) and bool(names[i])
        if letter in "rv" and not given:
            return False
    return True


def _is_kind(kind: str, value: Attr) -> bool:
    if kind.isupper():
        return isinstance(value, list) and all(_is_kind(kind.lower(), v) for v in value)
    if kind == "i":
        return isinstance(value, int)
    if kind == "f":
        return isinstance(value, (int, float))
    if kind == "s":
        return isinstance(value, str)
    if kind == "t":
        return isinstance(value, np.ndarray)
    return kind == "g" and isinstance(value, Graph)


@cache
def operators() -> dict[str, Operator]:
    """Name → operator."""
    table: dict[str, Operator] = {}
    for line in _TABLE.replace("\n  ", " ").strip().splitlines():
        name, inputs, outputs, *attrs = line.split()
        kinds = dict(attr.split("=") for attr in attrs)
        table[name] = Operator(inputs.strip("-"), outputs.strip("-"), kinds)
    return table


_TABLE = """
Abs r r
Acos r r
Acosh r r
Add rr r
AffineGrid rr r align_corners=i
And rr r
ArgMax r r axis=i keepdims=i select_last_index=i
ArgMin r r axis=i keepdims=i select_last_index=i
Asin r r
Asinh r r
Atan r r
Atanh r r
Attention rrroooo rooo is_causal=i kv_num_heads=i left_window_size=i q_num_heads=i
  qk_matmul_output_mode=i right_window_size=i scale=f softcap=f softmax_precision=i
AveragePool r r auto_pad=s ceil_mode=i count_include_pad=i dilations=I kernel_shape=I pads=I
  strides=I
BatchNormalization rrrrr roo epsilon=f momentum=f training_mode=i
Bernoulli r r dtype=i seed=f
BitCast r r to=i
BitShift rr r direction=s
BitwiseAnd rr r
BitwiseNot r r
BitwiseOr rr r
BitwiseXor rr r
BlackmanWindow r r output_datatype=i periodic=i
Cast r r round_mode=s saturate=i to=i
CastLike rr r round_mode=s saturate=i
CausalConvWithState rroo rr activation=s
Ceil r r
Celu r r alpha=f
CenterCropPad rr r axes=I
Clip roo r
Col2Im rrr r dilations=I pads=I strides=I
Compress rr r axis=i
Concat v r axis=i
ConcatFromSequence r r axis=i new_axis=i
Constant - r sparse_value=? value=t value_float=f value_floats=F value_int=i value_ints=I
  value_string=s value_strings=S
ConstantOfShape r r value=t
Conv rro r auto_pad=s dilations=I group=i kernel_shape=I pads=I strides=I
ConvInteger rroo r auto_pad=s dilations=I group=i kernel_shape=I pads=I strides=I
ConvTranspose rro r auto_pad=s dilations=I group=i kernel_shape=I output_padding=I
  output_shape=I pads=I strides=I
Cos r r
Cosh r r
CumProd rr r exclusive=i reverse=i
CumSum rr r exclusive=i reverse=i
DFT roo r inverse=i onesided=i
DeformConv rrroo r dilations=I group=i kernel_shape=I offset_group=i pads=I strides=I
DepthToSpace r r blocksize=i mode=s
DequantizeLinear rro r axis=i block_size=i output_dtype=i
Det r r
Div rr r
Dropout roo ro seed=i
DynamicQuantizeLinear r rrr
Einsum v r equation=s
Elu r r alpha=f
Equal rr r
Erf r r
Exp r r
Expand rr r
EyeLike r r dtype=i k=i
Flatten r r axis=i
Floor r r
GRU rrrooo oo activation_alpha=F activation_beta=F activations=S clip=f direction=s
  hidden_size=i layout=i linear_before_reset=i
Gather rr r axis=i
GatherElements rr r axis=i
GatherND rr r batch_dims=i
Gelu r r approximate=s
Gemm rro r alpha=f beta=f transA=i transB=i
GlobalAveragePool r r
GlobalLpPool r r p=i
GlobalMaxPool r r
Greater rr r
GreaterOrEqual rr r
GridSample rr r align_corners=i mode=s padding_mode=s
GroupNormalization rrr r epsilon=f num_groups=i stash_type=i
HammingWindow r r output_datatype=i periodic=i
HannWindow r r output_datatype=i periodic=i
HardSigmoid r r alpha=f beta=f
HardSwish r r
Hardmax r r axis=i
Identity r r
If r v else_branch=g then_branch=g
ImageDecoder r r pixel_format=s
InstanceNormalization rrr r epsilon=f
IsInf r r detect_negative=i detect_positive=i
IsNaN r r
LRN r r alpha=f beta=f bias=f size=i
LSTM rrrooooo ooo activation_alpha=F activation_beta=F activations=S clip=f direction=s
  hidden_size=i input_forget=i layout=i
LayerNormalization rro roo axis=i epsilon=f stash_type=i
LeakyRelu r r alpha=f
Less rr r
LessOrEqual rr r
LinearAttention rrrooo rr chunk_size=i kv_num_heads=i q_num_heads=i scale=f update_rule=s
Log r r
LogSoftmax r r axis=i
Loop oow v body=g
LpNormalization r r axis=i p=i
LpPool r r auto_pad=s ceil_mode=i dilations=I kernel_shape=I p=i pads=I strides=I
MatMul rr r
MatMulInteger rroo r
Max v r
MaxPool r ro auto_pad=s ceil_mode=i dilations=I kernel_shape=I pads=I storage_order=i strides=I
MaxRoiPool rr r pooled_shape=I spatial_scale=f
MaxUnpool rro r kernel_shape=I pads=I strides=I
Mean v r
MeanVarianceNormalization r r axes=I
MelWeightMatrix rrrrr r output_datatype=i
Min v r
Mish r r
Mod rr r fmod=i
Mul rr r
Multinomial r r dtype=i sample_size=i seed=f
Neg r r
NegativeLogLikelihoodLoss rro r ignore_index=i reduction=s
NonMaxSuppression rrooo r center_point_box=i
NonZero r r
Not r r
OneHot rrr r axis=i
Optional o r type=s
OptionalGetElement r r
OptionalHasElement o r
Or rr r
PRelu rr r
Pad rroo r mode=s
Pow rr r
QLinearConv rrrrrrrro r auto_pad=s dilations=I group=i kernel_shape=I pads=I strides=I
QLinearMatMul rrrrrrrr r
QuantizeLinear rro r axis=i block_size=i output_dtype=i precision=i saturate=i
RMSNormalization rr r axis=i epsilon=f stash_type=i
RNN rrrooo oo activation_alpha=F activation_beta=F activations=S clip=f direction=s
  hidden_size=i layout=i
RandomNormal - r dtype=i mean=f scale=f seed=f shape=I
RandomNormalLike r r dtype=i mean=f scale=f seed=f
RandomUniform - r dtype=i high=f low=f seed=f shape=I
RandomUniformLike r r dtype=i high=f low=f seed=f
Range rrr r stash_type=i
Reciprocal r r
ReduceL1 ro r keepdims=i noop_with_empty_axes=i
ReduceL2 ro r keepdims=i noop_with_empty_axes=i
ReduceLogSum ro r keepdims=i noop_with_empty_axes=i
ReduceLogSumExp ro r keepdims=i noop_with_empty_axes=i
ReduceMax ro r keepdims=i noop_with_empty_axes=i
ReduceMean ro r keepdims=i noop_with_empty_axes=i
ReduceMin ro r keepdims=i noop_with_empty_axes=i
ReduceProd ro r keepdims=i noop_with_empty_axes=i
ReduceSum ro r keepdims=i noop_with_empty_axes=i
ReduceSumSquare ro r keepdims=i noop_with_empty_axes=i
RegexFullMatch r r pattern=s
Relu r r
Reshape rr r allowzero=i
Resize rooo r antialias=i axes=I coordinate_transformation_mode=s cubic_coeff_a=f
  exclude_outside=i extrapolation_value=f keep_aspect_ratio_policy=s mode=s nearest_mode=s
ReverseSequence rr r batch_axis=i time_axis=i
RoiAlign rrr r coordinate_transformation_mode=s mode=s output_height=i output_width=i
  sampling_ratio=i spatial_scale=f
RotaryEmbedding rrro r interleaved=i num_heads=i rotary_embedding_dim=i
Round r r
STFT rroo r onesided=i
Scan v v body=g num_scan_inputs=i scan_input_axes=I scan_input_directions=I scan_output_axes=I
  scan_output_directions=I
ScatterElements rrr r axis=i reduction=s
ScatterND rrr r reduction=s
Selu r r alpha=f gamma=f
SequenceAt rr r
SequenceConstruct v r
SequenceEmpty - r dtype=i
SequenceErase ro r
SequenceInsert rro r
SequenceLength r r
SequenceMap rw v body=g
Shape r r end=i start=i
Shrink r r bias=f lambd=f
Sigmoid r r
Sign r r
Sin r r
Sinh r r
Size r r
Slice rrroo r
Softmax r r axis=i
SoftmaxCrossEntropyLoss rro ro ignore_index=i reduction=s
Softplus r r
Softsign r r
SpaceToDepth r r blocksize=i mode=s
Split ro v axis=i num_outputs=i
SplitToSequence ro r axis=i keepdims=i
Sqrt r r
Squeeze ro r
StringConcat rr r
StringNormalizer r r case_change_action=s is_case_sensitive=i locale=s stopwords=S
StringSplit r rr delimiter=s maxsplit=i
Sub rr r
Sum v r
SwiGLU rr r alpha=f
Swish r r alpha=f
Tan r r
Tanh r r
TensorScatter rro r axis=i mode=s
TfIdfVectorizer r r max_gram_length=i max_skip_count=i min_gram_length=i mode=s ngram_counts=I
  ngram_indexes=I pool_int64s=I pool_strings=S weights=F
ThresholdedRelu r r alpha=f
Tile rr r
TopK rr rr axis=i largest=i sorted=i
Transpose r r perm=I
Trilu ro r upper=i
Unique r rooo axis=i sorted=i
Unsqueeze rr r
Where rrr r
Xor rr r
"""
