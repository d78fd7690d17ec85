// Fortran symbols of the dense solvers. Those of LAPACK come from libtorch_cpu, which exports MKL's (LP64).
#pragma once

extern "C" {
void dsyevd_(const char* jobz, const char* uplo, const int* n, double* a, const int* lda, double* w,
             double* work, const int* lwork, int* iwork, const int* liwork, int* info);
}
