// mmcv's kernels behind a plain C interface. Compiled by nvcc, the pointers are the device's.
#include "sigmoid_focal_loss_cuda_kernel.cuh"
#include "softmax_focal_loss_cuda_kernel.cuh"

#ifdef __CUDACC__
#define LAUNCH(kernel, count) kernel<<<((count) + 511) / 512, 512>>>
#else
#define LAUNCH(kernel, count) kernel
#endif

template <typename T>
int run(bool backward, int count, const void *input, const int64_t *target, const void *weight, void *output, float gamma,
        float alpha, int num_classes) {
  const T *x = static_cast<const T *>(input), *w = static_cast<const T *>(weight);
  T *out = static_cast<T *>(output);
  if (backward) {
    LAUNCH(sigmoid_focal_loss_backward_cuda_kernel<T>, count)(count, x, target, w, out, T(gamma), T(alpha), num_classes);
  } else {
    LAUNCH(sigmoid_focal_loss_forward_cuda_kernel<T>, count)(count, x, target, w, out, T(gamma), T(alpha), num_classes);
  }
#ifdef __CUDACC__
  return cudaGetLastError();
#else
  return 0;
#endif
}

// The loss of each row, and by way of the factor of each row the gradient of each logit.
template <typename T>
int run_softmax(int rows, const void *softmax, const int64_t *target, const void *weight, void *loss, void *factor,
                void *grad, float gamma, float alpha, int num_classes) {
  const T *p = static_cast<const T *>(softmax), *w = static_cast<const T *>(weight);
  T *value = static_cast<T *>(loss), *each = static_cast<T *>(factor), *out = static_cast<T *>(grad);
  const int count = rows * num_classes;
  LAUNCH(softmax_focal_loss_forward_cuda_kernel<T>, rows)(rows, p, target, w, value, T(gamma), T(alpha), num_classes);
  LAUNCH(softmax_focal_loss_backward_cuda1_kernel<T>, rows)(rows, p, target, w, each, T(gamma), T(alpha), num_classes);
  LAUNCH(softmax_focal_loss_backward_cuda2_kernel<T>, count)(count, p, target, each, out, num_classes);
#ifdef __CUDACC__
  return cudaGetLastError();
#else
  return 0;
#endif
}

#define EXPORT(name, T)                                                                                                  \
  extern "C" int name(bool backward, int count, const void *input, const int64_t *target, const void *weight,            \
                      void *output, float gamma, float alpha, int num_classes) {                                         \
    return run<T>(backward, count, input, target, weight, output, gamma, alpha, num_classes);                            \
  }                                                                                                                      \
  extern "C" int softmax_##name(int rows, const void *softmax, const int64_t *target, const void *weight, void *loss,    \
                                void *factor, void *grad, float gamma, float alpha, int num_classes) {                   \
    return run_softmax<T>(rows, softmax, target, weight, loss, factor, grad, gamma, alpha, num_classes);                 \
  }

EXPORT(run_float, float)
EXPORT(run_double, double)
EXPORT(run_half, c10::Half)
