"""The kind of each operation of torch, by its name without the underscore of those that work in place."""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MEMORY = _names(
    """
    empty empty_like empty_strided empty_permuted new_empty new_empty_strided resize detach alias set lift lift_fresh
    record_stream is_same_size is_pinned pin_memory _pin_memory _has_compatible_shallow_copy_type sym_size sym_numel sym_stride
    """
)
"""They only make memory or describe it: there is nothing to compare."""
EXACT = _names(
    """
    clone copy _to_copy contiguous cat stack index index_select gather index_copy index_fill scatter masked_fill masked_select
    masked_scatter where fill zero zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full scalar_tensor
    flip roll repeat repeat_interleave constant_pad_nd tril triu slice_scatter select_scatter slice_backward select_backward
    unfold pixel_shuffle pixel_unshuffle channel_shuffle embedding upsample_nearest2d _upsample_nearest_exact2d eye take
    split_with_sizes_copy _local_scalar_dense nan_to_num
    clamp clamp_min clamp_max maximum minimum fmax fmin amax amin aminmax max min median relu threshold threshold_backward
    hardtanh hardtanh_backward abs neg sgn sign round floor ceil trunc fmod remainder floor_divide
    """
)
"""They copy, choose or compare: nothing is rounded, or once and in the same way everywhere."""
LINEAR = _names(
    """
    convolution convolution_backward cudnn_convolution miopen_convolution mm bmm addmm baddbmm addbmm mv addmv dot linear
    linear_backward sum mean cumsum trace avg_pool2d avg_pool2d_backward _adaptive_avg_pool2d _adaptive_avg_pool2d_backward
    upsample_bilinear2d upsample_bilinear2d_backward upsample_bicubic2d upsample_bicubic2d_backward
    upsample_nearest2d_backward _upsample_nearest_exact2d_backward max_pool2d_with_indices_backward index_add scatter_add
    embedding_dense_backward im2col col2im
    """
)
"""They add up products of their arguments."""
CANCELLING = _names("gelu gelu_backward mish mish_backward erfc")
"""Functions of one element in which numbers of its own size cancel: 1 + erf(x) at -3."""
LISTS_TO_NUMBERS = _names("_foreach_norm _foreach_max _foreach_powsum")
"""Operations on lists that are none of single elements."""
PLACES = _names("max min topk sort median cummax cummin max_pool2d_with_indices")
"""They give values and where those are, when they give two results."""
PUT = _names("index_put _index_put_impl")


def base_of(name: str) -> str:
    """Return the name of what an operation does, whether in place or on a list."""
    return name.removeprefix("_foreach_").rstrip("_")
