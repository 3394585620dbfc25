// All kernels. They are compiled by NVRTC for the device at hand, by nvcc for the PTX that is part
// of the tool, and by a C++ compiler with emulate.cpp, which runs them on the CPU.

#include "base.cuh"
#include "math.cuh"
#include "vectors.cuh"
#include "quantise.cuh"
#include "floats.cuh"
#include "integers.cuh"
#include "digest.cuh"
#include "recurrences.cuh"
