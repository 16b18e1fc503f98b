/* Kernels of Sixfold's own, as a Python module: max-pooling with the ReLU behind it, batch-norm with
 * the activation behind it, the weights' gradient of a convolution, and 3x3 convolutions.
 *
 * Of the first two a machine with this module and one without compute the same bits: max-pooling
 * only compares and moves values, and the sums of batch-norm have an order that its callers can
 * follow. Arguments are addresses and sizes; the callers, `sixfold.training.native.max_pool`,
 * `.norm`, `.conv_weights` and `.winograd`, answer for them.
 *
 * The interpreter's lock is kept but for convolutions: a rank computes in one thread, and the one
 * that makes its next batch would hold the lock for longer than a call takes. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#define HAS_CONVOLUTION
#endif

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define CLONES __attribute__((noinline, target_clones("arch=skylake-avx512", "avx2", "default")))
/* Of vectors of 64 bytes: the one above is Intel's only. */
#define CLONES_512 __attribute__((noinline, target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#define CLONES_512
#endif

#define LANES 8
#define NOWHERE 255

typedef struct {
    long images, height, width, channels;
    long kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
    long out_h, out_w, relu;
} Geometry;

/* The part of a pooling window that lies within the image. */
typedef struct {
    long top, left;             /* row and column of its first element, perhaps outside */
    long first_i, last_i;       /* kernel rows inside, the last exclusive */
    long first_j, last_j;
    int rows_whole, cols_whole; /* whether nothing was cut off */
} Window;

static inline __attribute__((always_inline)) void
inside(long start, long step, long count, long length, long *first, long *last)
{
    *first = start < 0 ? (-start + step - 1) / step : 0;
    *last = count;
    while (*last > *first && start + (*last - 1) * step >= length) --*last;
}

static inline __attribute__((always_inline)) Window window(const Geometry *g, long r, long s)
{
    Window w;
    w.top = r * g->stride_h - g->padding_h;
    w.left = s * g->stride_w - g->padding_w;
    inside(w.top, g->dilation_h, g->kernel_h, g->height, &w.first_i, &w.last_i);
    inside(w.left, g->dilation_w, g->kernel_w, g->width, &w.first_j, &w.last_j);
    w.rows_whole = w.first_i == 0 && w.last_i == g->kernel_h;
    w.cols_whole = w.first_j == 0 && w.last_j == g->kernel_w;
    return w;
}

typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
typedef double Doubles __attribute__((vector_size(LANES * 8)));
typedef int64_t Longs __attribute__((vector_size(LANES * 8)));

#define T float
#define I int32_t
#define VT Floats
#define VI Ints
#define NAME(name) name##_float
#include "pool.inc"
#undef T
#undef I
#undef VT
#undef VI
#undef NAME

#include "pool_bf16.inc"

#define T double
#define I int64_t
#define VT Doubles
#define VI Longs
#define NAME(name) name##_double
#include "pool.inc"

#undef T
#undef I
#undef VT
#undef VI
#undef NAME

#define BLOCK 64  /* rows that are added up in the type of the elements */
#define WIDEST 32 /* channels at a time */

#define S float
#define T float
#define NAME(name) name##_float
#define LOAD(x) (x)
#define STORE(x) (x)
#include "norm.inc"
#undef S
#undef T
#undef NAME

#define S double
#define T double
#define NAME(name) name##_double
#include "norm.inc"
#undef S
#undef T
#undef NAME
#undef LOAD
#undef STORE

/* To the nearest, and to the even one of two as near; a NaN stays one. */
static inline __attribute__((always_inline)) uint16_t narrow_one_bf16(float from)
{
    uint32_t bits;
    memcpy(&bits, &from, sizeof bits);
    const uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
    return (uint16_t)((from == from ? rounded : 0x7fc00000) >> 16);
}

#define S uint16_t
#define T float
#define NAME(name) name##_bf16
#define LOAD(x) widen_one_bf16(x)
#define STORE(x) narrow_one_bf16(x)
#include "norm.inc"

#ifdef HAS_CONVOLUTION
#include "conv.inc"
#include "product.inc"
#include "winograd.inc"

static int has_fused(void)
{
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
    PyErr_SetString(PyExc_RuntimeError, "this processor has no AVX2 or no FMA");
    return 0;
}

#define CONV_SIZES 13

/* conv_weights(x, dy, dw, db, *sizes): addresses, of which db may be 0, and the sizes of
 * `Convolution` in its order. */
static PyObject *conv_weights(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    void *at[4];
    Convolution g;
    long *sizes = (long *)&g;
    int done;
    (void)module;
    if (count != 4 + CONV_SIZES) {
        PyErr_Format(PyExc_TypeError, "expected %d arguments, got %zd", 4 + CONV_SIZES, count);
        return NULL;
    }
    for (int k = 0; k < 4; k++) at[k] = PyLong_AsVoidPtr(args[k]);
    for (int k = 0; k < CONV_SIZES; k++) sizes[k] = PyLong_AsLong(args[4 + k]);
    if (PyErr_Occurred() || !has_fused()) return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = conv_weights_float(&g, at[0], at[1], at[2], at[3]);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

#define WINOGRAD_SIZES 11

/* Reads addresses and the sizes of `Winograd` in its order; returns 0 with an exception set. */
static int read_winograd(PyObject *const *args, Py_ssize_t count, int addresses, void **at,
                         Winograd *g)
{
    long *sizes = (long *)g;
    if (count != addresses + WINOGRAD_SIZES) {
        PyErr_Format(PyExc_TypeError, "expected %d arguments, got %zd", addresses + WINOGRAD_SIZES,
                     count);
        return 0;
    }
    for (int k = 0; k < addresses; k++) at[k] = PyLong_AsVoidPtr(args[k]);
    for (int k = 0; k < WINOGRAD_SIZES; k++) sizes[k] = PyLong_AsLong(args[addresses + k]);
    return !PyErr_Occurred() && has_fused();
}

/* winograd(x, w, bias, y, turned, *sizes): addresses, of which bias may be 0, and sizes. */
static PyObject *winograd(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    void *at[5];
    Winograd g;
    int done;
    (void)module;
    if (!read_winograd(args, count, 5, at, &g)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = winograd_forward(&g, at[0], at[1], at[4] != NULL, at[2], at[3]);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* winograd_dw(x, dy, dw, *sizes). */
static PyObject *winograd_dw(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    void *at[3];
    Winograd g;
    int done;
    (void)module;
    if (!read_winograd(args, count, 3, at, &g)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = winograd_weights(&g, at[0], at[1], at[2]);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}
#endif

#define SIZES 15

/* Reads (itemsize, three addresses, fifteen sizes); returns 0 with an exception set if it fails. */
static int read_arguments(PyObject *const *args, Py_ssize_t count, long *itemsize,
                          void **addresses, Geometry *geometry)
{
    if (count != 4 + SIZES) {
        PyErr_Format(PyExc_TypeError, "expected %d arguments, got %zd", 4 + SIZES, count);
        return 0;
    }
    *itemsize = PyLong_AsLong(args[0]);
    for (int k = 0; k < 3; k++) addresses[k] = PyLong_AsVoidPtr(args[1 + k]);
    long *sizes = (long *)geometry;
    for (int k = 0; k < SIZES; k++) sizes[k] = PyLong_AsLong(args[4 + k]);
    if (PyErr_Occurred()) return 0;
    if (*itemsize != 2 && *itemsize != 4 && *itemsize != 8) {
        PyErr_SetString(PyExc_ValueError, "elements must be bfloat16, float32 or float64");
        return 0;
    }
    return 1;
}

static PyObject *max_pool_forward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    long itemsize;
    void *at[3];
    Geometry g;
    (void)module;
    if (!read_arguments(args, count, &itemsize, at, &g)) return NULL;
    if (itemsize == 2)
        forward_bf16(&g, at[0], at[1], at[2]);
    else if (itemsize == 4)
        forward_float(&g, at[0], at[1], at[2]);
    else
        forward_double(&g, at[0], at[1], at[2]);
    Py_RETURN_NONE;
}

static PyObject *max_pool_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    long itemsize;
    void *at[3];
    Geometry g;
    (void)module;
    if (!read_arguments(args, count, &itemsize, at, &g)) return NULL;
    /* Windows that tile the input write every element once; others need zeros to add to. */
    const int tiles = g.kernel_h == g.stride_h && g.kernel_w == g.stride_w && !g.padding_h &&
                      !g.padding_w && g.dilation_h == 1 && g.dilation_w == 1 &&
                      g.out_h * g.stride_h >= g.height && g.out_w * g.stride_w >= g.width;
    if (itemsize == 2 && !tiles) {
        PyErr_SetString(PyExc_ValueError, "bfloat16 is only moved, never added up");
        return NULL;
    }
    if (!tiles) memset(at[2], 0, (size_t)(g.images * g.height * g.width * g.channels * itemsize));
    if (itemsize == 2)
        backward_bf16(&g, at[0], at[1], at[2]);
    else if (itemsize == 4)
        backward_float(&g, at[0], at[1], at[2], !tiles);
    else
        backward_double(&g, at[0], at[1], at[2], !tiles);
    Py_RETURN_NONE;
}

/* norm(what, itemsize, rows, C, act, then addresses: x, dy or y, dx, shift, scale, offset, slope,
 * level, 2 C doubles for sums). What a call has no use for is 0. */
static PyObject *norm(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    long size[5];
    void *at[9];
    (void)module;
    if (count != 5 + 9) {
        PyErr_Format(PyExc_TypeError, "expected 14 arguments, got %zd", count);
        return NULL;
    }
    for (int k = 0; k < 5; k++) size[k] = PyLong_AsLong(args[k]);
    for (int k = 0; k < 9; k++) at[k] = PyLong_AsVoidPtr(args[5 + k]);
    if (PyErr_Occurred()) return NULL;
    const long what = size[0], rows = size[2], C = size[3];
    const int act = (int)size[4];
#define CALL(type)                                                                                 \
    switch (what) {                                                                                \
    case 0: norm_sums_##type(at[0], at[3], rows, C, at[8]); break;                          \
    case 1: norm_apply_##type(at[0], at[1], at[4], at[5], rows, C, act); break;                    \
    case 2:                                                                                        \
        norm_back_sums_##type(at[0], at[1], at[3], at[4], at[5], rows, C, act, at[8]);             \
        break;                                                                                     \
    case 3:                                                                                        \
        norm_back_apply_##type(at[0], at[1], at[2], at[4], at[5], at[6], at[7], rows, C, act);     \
        break;                                                                                     \
    default: PyErr_SetString(PyExc_ValueError, "no such part of batch-norm"); return NULL;         \
    }
    if (size[1] == 2) {
        CALL(bf16)
    } else if (size[1] == 4) {
        CALL(float)
    } else if (size[1] == 8) {
        CALL(double)
    } else {
        PyErr_SetString(PyExc_ValueError, "elements must be bfloat16, float32 or float64");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Reads sizes (itemsize, rows, C, act) and addresses; returns 0 with an exception set. */
static int read_norm(PyObject *const *args, Py_ssize_t count, long *size, void **at, int addresses,
                     Py_ssize_t expected)
{
    if (count != expected) {
        PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", expected, count);
        return 0;
    }
    for (int k = 0; k < 4; k++) size[k] = PyLong_AsLong(args[k]);
    for (int k = 0; k < addresses; k++) at[k] = PyLong_AsVoidPtr(args[4 + k]);
    if (PyErr_Occurred()) return 0;
    if (size[0] != 2 && size[0] != 4 && size[0] != 8) {
        PyErr_SetString(PyExc_ValueError, "elements must be bfloat16, float32 or float64");
        return 0;
    }
    return 1;
}

/* norm_forward(itemsize, rows, C, act, then addresses: x, y, weight, bias, stats, line, eps). */
static PyObject *norm_forward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    long n[4];
    void *at[6];
    (void)module;
    if (!read_norm(args, count, n, at, 6, 11)) return NULL;
    const double eps = PyFloat_AsDouble(args[10]);
    if (PyErr_Occurred()) return NULL;
#define FORWARD(type)                                                                              \
    norm_forward_##type(at[0], at[1], at[2], at[3], eps, n[1], n[2], (int)n[3], at[4], at[5])
    if (n[0] == 2)
        FORWARD(bf16);
    else if (n[0] == 4)
        FORWARD(float);
    else
        FORWARD(double);
    Py_RETURN_NONE;
}

/* norm_backward(itemsize, rows, C, act, then addresses: x, dy, dx, mean, inverse, scale, offset,
 * sums, line). */
static PyObject *norm_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    long n[4];
    void *at[9];
    (void)module;
    if (!read_norm(args, count, n, at, 9, 13)) return NULL;
#define BACKWARD(type)                                                                             \
    norm_backward_##type(at[0], at[1], at[2], at[3], at[4], at[5], at[6], n[1], n[2], (int)n[3],   \
                         at[7], at[8])
    if (n[0] == 2)
        BACKWARD(bf16);
    else if (n[0] == 4)
        BACKWARD(float);
    else
        BACKWARD(double);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"max_pool_forward", (PyCFunction)(void (*)(void))max_pool_forward, METH_FASTCALL,
     "max_pool_forward(itemsize, x, y, place, *geometry)"},
    {"max_pool_backward", (PyCFunction)(void (*)(void))max_pool_backward, METH_FASTCALL,
     "max_pool_backward(itemsize, grad, place, x_grad, *geometry)"},
    {"norm", (PyCFunction)(void (*)(void))norm, METH_FASTCALL,
     "norm(what, itemsize, rows, C, act, *addresses)"},
    {"norm_forward", (PyCFunction)(void (*)(void))norm_forward, METH_FASTCALL,
     "norm_forward(itemsize, rows, C, act, *addresses, eps)"},
    {"norm_backward", (PyCFunction)(void (*)(void))norm_backward, METH_FASTCALL,
     "norm_backward(itemsize, rows, C, act, *addresses)"},
#ifdef HAS_CONVOLUTION
    {"conv_weights", (PyCFunction)(void (*)(void))conv_weights, METH_FASTCALL,
     "conv_weights(x, dy, dw, db, *sizes)"},
    {"winograd", (PyCFunction)(void (*)(void))winograd, METH_FASTCALL,
     "winograd(x, w, bias, y, turned, *sizes)"},
    {"winograd_dw", (PyCFunction)(void (*)(void))winograd_dw, METH_FASTCALL,
     "winograd_dw(x, dy, dw, *sizes)"},
#endif
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "kernels",
                                        "See sixfold.training.native.", -1, methods, NULL, NULL, NULL, NULL};

/* Grows with what the module can do, so that the caller knows an older build. */
#define VERSION 4

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

/* What this build is, to be found in the file before it is loaded: see sixfold.training.native.loading. Its
 * needs are what the compiler was allowed to use everywhere (-march=native), by the names of
 * /proc/cpuinfo; code that is chosen while it runs (CLONES) needs nothing. */
static const char build[] = "sixfold-kernels version=" TEXT(VERSION) " needs="
#include "needs.inc"
                            ";";

PyMODINIT_FUNC PyInit_kernels(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && (PyModule_AddIntConstant(module, "version", VERSION) < 0 ||
                           PyModule_AddStringConstant(module, "build", build) < 0)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
