/* Fast creation of the commonest numpy scalars. Include after numpy/arrayobject.h. */
#ifndef AX_SCALAR_H
#define AX_SCALAR_H

#include <numpy/arrayscalars.h>

static inline PyObject *ax_scalar(int kind, const void *bytes, PyObject *dtype)
{
    PyObject *made;
    switch (kind) {
    case NPY_DOUBLE:
        made = PyDoubleArrType_Type.tp_alloc(&PyDoubleArrType_Type, 0);
        if (made)
            PyArrayScalar_VAL(made, Double) = *(const npy_double *)bytes;
        return made;
    case NPY_LONG:
        made = PyLongArrType_Type.tp_alloc(&PyLongArrType_Type, 0);
        if (made)
            PyArrayScalar_VAL(made, Long) = *(const npy_long *)bytes;
        return made;
    case NPY_ULONG:
        made = PyULongArrType_Type.tp_alloc(&PyULongArrType_Type, 0);
        if (made)
            PyArrayScalar_VAL(made, ULong) = *(const npy_ulong *)bytes;
        return made;
    default:
        return PyArray_Scalar((void *)bytes, (PyArray_Descr *)dtype, NULL);
    }
}

#endif
